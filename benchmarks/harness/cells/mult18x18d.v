// Behaviour of ECP5's MULT18X18D as Lattice's "ECP5 and ECP5-5G sysDSP Usage Guide" (FPGA-TN-02205)
// documents it: operand, pipeline and output registers, each present when its *_CLK parameter is
// not "NONE", with synchronous reset, signed or unsigned operands. Yosys has only a black box.
// Clock, enable and reset 0 serve every register; the shift inputs and the C operand are not
// modelled, and asking for them stops the simulation.
module MULT18X18D (
    input A17, A16, A15, A14, A13, A12, A11, A10, A9,
    input A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input B17, B16, B15, B14, B13, B12, B11, B10, B9,
    input B8, B7, B6, B5, B4, B3, B2, B1, B0,
    input C17, C16, C15, C14, C13, C12, C11, C10, C9,
    input C8, C7, C6, C5, C4, C3, C2, C1, C0,
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    input CLK3, CLK2, CLK1, CLK0, CE3, CE2, CE1, CE0, RST3, RST2, RST1, RST0,
    output P35, P34, P33, P32, P31, P30, P29, P28, P27,
    output P26, P25, P24, P23, P22, P21, P20, P19, P18,
    output P17, P16, P15, P14, P13, P12, P11, P10, P9,
    output P8, P7, P6, P5, P4, P3, P2, P1, P0
);
    parameter REG_INPUTA_CLK = "NONE";
    parameter REG_INPUTB_CLK = "NONE";
    parameter REG_INPUTC_CLK = "NONE";
    parameter REG_PIPELINE_CLK = "NONE";
    parameter REG_OUTPUT_CLK = "NONE";
    parameter SOURCEB_MODE = "B_SHIFT";
    parameter MULT_BYPASS = "DISABLED";
    parameter GSR = "ENABLED";

    wire signed [18:0] a = {SIGNEDA & A17, A17, A16, A15, A14, A13, A12, A11, A10, A9,
                            A8, A7, A6, A5, A4, A3, A2, A1, A0};
    wire signed [18:0] b = {SIGNEDB & B17, B17, B16, B15, B14, B13, B12, B11, B10, B9,
                            B8, B7, B6, B5, B4, B3, B2, B1, B0};
    reg signed [18:0] a_held, b_held;
    reg [35:0] piped, out;
    wire signed [18:0] a_used = REG_INPUTA_CLK == "NONE" ? a : a_held;
    wire signed [18:0] b_used = REG_INPUTB_CLK == "NONE" ? b : b_held;
    wire signed [37:0] product = a_used * b_used;
    wire [35:0] stage = REG_PIPELINE_CLK == "NONE" ? product[35:0] : piped;
    wire [35:0] p = REG_OUTPUT_CLK == "NONE" ? stage : out;
    assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24,
            P23, P22, P21, P20, P19, P18, P17, P16, P15, P14, P13, P12,
            P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0} = p;

    always @(posedge CLK0)
        if (RST0) begin
            a_held <= 0;
            b_held <= 0;
            piped <= 0;
            out <= 0;
        end else if (CE0) begin
            a_held <= a;
            b_held <= b;
            piped <= product[35:0];
            out <= stage;
        end

    initial begin
        if (MULT_BYPASS != "DISABLED" || REG_INPUTC_CLK != "NONE") begin
            $display("MULT18X18D: this model has no bypass and no C operand");
            $finish;
        end
    end

    always @(SOURCEA or SOURCEB)
        if (SOURCEA !== 0 || SOURCEB !== 0) begin
            $display("MULT18X18D: this model has no shift inputs");
            $finish;
        end
endmodule
