# SPDX-License-Identifier: Apache-2.0
# Makes an IP of Vivado's catalog out of core.v, in the folder `vivado` beside this script:
#
#   vivado -mode batch -source package_ip.tcl
#
# Add that folder to the project's IP repositories; in a block design the core is {{ vendor }}:{{ library }}:{{ name }}.

set here [file dirname [file normalize [info script]]]
set target [file join $here vivado]
file mkdir $target

create_project -in_memory package_{{ name }}
add_files -norecurse [file join $here core.v]
set_property top {{ module }} [current_fileset]
update_compile_order -fileset sources_1

ipx::package_project -root_dir $target -vendor {{ vendor }} -library {{ library }} -taxonomy /UserIP -import_files -force
set core [ipx::current_core]
set_property name {{ name }} $core
set_property version {{ version }} $core
set_property display_name "{{ name }}" $core
set_property description "{{ summary }}" $core

# Vivado finds m_axi and s_axil by the names of their ports. What it finds of the rest depends on its version.
proc interface {core port type} {
    if {[llength [ipx::get_bus_interfaces -quiet $port -of_objects $core]] == 0} {
        ipx::infer_bus_interface $port $type $core
    }
    return [ipx::get_bus_interfaces $port -of_objects $core]
}
proc parameter {bus name value} {
    if {[llength [ipx::get_bus_parameters -quiet $name -of_objects $bus]] == 0} {
        ipx::add_bus_parameter $name $bus
    }
    set_property value $value [ipx::get_bus_parameters $name -of_objects $bus]
}
interface $core clk xilinx.com:signal:clock_rtl:1.0
parameter [interface $core rst xilinx.com:signal:reset_rtl:1.0] POLARITY ACTIVE_HIGH
parameter [interface $core irq xilinx.com:signal:interrupt_rtl:1.0] SENSITIVITY LEVEL_HIGH
ipx::associate_bus_interfaces -busif m_axi -clock clk $core
ipx::associate_bus_interfaces -busif s_axil -clock clk $core
ipx::associate_bus_interfaces -clock clk -reset rst $core

ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity $core
ipx::save_core $core
close_project
