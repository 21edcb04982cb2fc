// SPDX-License-Identifier: Apache-2.0
// MULT9X9 and MULT18X18 of the Gowin GW1N and GW2A, as far as Loomwork uses them: without the shift chain and the
// pipeline register. Yosys has these cells as black boxes only. Written from Gowin UG287, "DSP User Guide" (ports and
// parameters of MULT9X9 and MULT18X18).
module gowin_multiplier #(
    parameter BITS = 9,
    parameter [0:0] AREG = 0,
    parameter [0:0] BREG = 0,
    parameter [0:0] OUT_REG = 0
) (
    input [BITS-1:0] A, B, SIA, SIB,
    input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
    output [2*BITS-1:0] DOUT
);
    reg [BITS-1:0] a_register, b_register;
    reg [2*BITS-1:0] out_register;
    wire [BITS-1:0] a = AREG ? a_register : A;
    wire [BITS-1:0] b = BREG ? b_register : B;
    wire [2*BITS-1:0] product = {{BITS{ASIGN & a[BITS-1]}}, a} * {{BITS{BSIGN & b[BITS-1]}}, b};
    assign DOUT = OUT_REG ? out_register : product;

    always @(posedge CLK)
        if (RESET) begin
            a_register <= 0;
            b_register <= 0;
            out_register <= 0;
        end else if (CE) begin
            a_register <= A;
            b_register <= B;
            out_register <= product;
        end

    initial
        if (ASEL !== 0 || BSEL !== 0) begin
            $display("the shift chain is not modelled");
            $fatal;
        end
endmodule

module MULT9X9 #(
    parameter [0:0] AREG = 0,
    parameter [0:0] BREG = 0,
    parameter [0:0] OUT_REG = 0
) (
    input [8:0] A, B, SIA, SIB,
    input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
    output [17:0] DOUT
);
    gowin_multiplier #(.BITS(9), .AREG(AREG), .BREG(BREG), .OUT_REG(OUT_REG)) multiplier(.*);
endmodule

module MULT18X18 #(
    parameter [0:0] AREG = 0,
    parameter [0:0] BREG = 0,
    parameter [0:0] OUT_REG = 0
) (
    input [17:0] A, B, SIA, SIB,
    input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
    output [35:0] DOUT
);
    gowin_multiplier #(.BITS(18), .AREG(AREG), .BREG(BREG), .OUT_REG(OUT_REG)) multiplier(.*);
endmodule
