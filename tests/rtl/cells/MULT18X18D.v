// SPDX-License-Identifier: Apache-2.0
// MULT18X18D of the Lattice ECP5, as far as Loomwork uses it: two operands of 18 bits, each signed or not, and their
// product, each with or without a register on CLK0. Yosys has this cell as a black box only. Written from Lattice
// FPGA-TN-02205, "ECP5 and ECP5-5G sysDSP Usage Guide" (multiplier, register and control signal attributes).
module MULT18X18D (
    input
        A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input
        B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB, CLK0, CE3, CE2, CE1, CE0, RST0,
    output
        P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15, P14,
        P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
    parameter REG_INPUTA_CLK = "NONE";
    parameter REG_INPUTA_CE = "CE0";
    parameter REG_INPUTB_CLK = "NONE";
    parameter REG_INPUTB_CE = "CE0";
    parameter REG_OUTPUT_CLK = "NONE";
    parameter REG_OUTPUT_CE = "CE0";
    parameter GSR = "ENABLED";

    wire [17:0] a = {
        A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0
    };
    wire [17:0] b = {
        B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0
    };

    wire ce_a = REG_INPUTA_CE == "CE0" ? CE0 : REG_INPUTA_CE == "CE1" ? CE1 : REG_INPUTA_CE == "CE2" ? CE2 : CE3;
    wire ce_b = REG_INPUTB_CE == "CE0" ? CE0 : REG_INPUTB_CE == "CE1" ? CE1 : REG_INPUTB_CE == "CE2" ? CE2 : CE3;
    wire ce_p = REG_OUTPUT_CE == "CE0" ? CE0 : REG_OUTPUT_CE == "CE1" ? CE1 : REG_OUTPUT_CE == "CE2" ? CE2 : CE3;

    // The mark of a signed operand has a register beside the operand's.
    reg [18:0] a_register, b_register;
    wire [18:0] a_used = REG_INPUTA_CLK == "CLK0" ? a_register : {SIGNEDA & a[17], a};
    wire [18:0] b_used = REG_INPUTB_CLK == "CLK0" ? b_register : {SIGNEDB & b[17], b};
    wire [35:0] product = {{17{a_used[18]}}, a_used} * {{17{b_used[18]}}, b_used};
    reg [35:0] p_register;
    assign {
        P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15, P14,
        P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
    } = REG_OUTPUT_CLK == "CLK0" ? p_register : product;

    always @(posedge CLK0) begin
        if (RST0) begin
            a_register <= 0;
            b_register <= 0;
            p_register <= 0;
        end else begin
            if (ce_a) a_register <= {SIGNEDA & a[17], a};
            if (ce_b) b_register <= {SIGNEDB & b[17], b};
            if (ce_p) p_register <= product;
        end
    end

    initial
        if (SOURCEA !== 0 || SOURCEB !== 0) begin
            $display("MULT18X18D: the cascade is not modelled");
            $fatal;
        end
endmodule
