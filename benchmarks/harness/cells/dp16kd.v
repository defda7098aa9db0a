// Behaviour of ECP5's DP16KD as Lattice's "ECP5 and ECP5-5G Memory Usage Guide" (FPGA-TN-02204)
// documents it: 18 kbit with two ports of 1, 2, 4, 9, 18 or 36 bits, whose addresses count bits of
// 16 kbit; of 18 and 36 bits the lowest address bits enable the writes of 9 bits each. A port A of
// 36 bits only writes, its upper half comes on DIB; a port B of 36 bits only reads, its lower half
// goes to DOA. Yosys has only a black box. What one port reads of bits that the other one writes in
// the same cycle is not defined. Output registers and resets are not modelled, and asking for them
// stops the simulation.
module DP16KD (
    input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9,
    input DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0,
    input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
    output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9,
    output DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0,
    input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9,
    input DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0,
    input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
    output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9,
    output DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0
);
    parameter DATA_WIDTH_A = 18;
    parameter DATA_WIDTH_B = 18;
    parameter REGMODE_A = "NOREG";
    parameter REGMODE_B = "NOREG";
    parameter RESETMODE = "SYNC";
    parameter ASYNC_RESET_RELEASE = "SYNC";
    parameter CSDECODE_A = "0b000";
    parameter CSDECODE_B = "0b000";
    parameter WRITEMODE_A = "NORMAL";
    parameter WRITEMODE_B = "NORMAL";
    parameter CLKAMUX = "CLKA";
    parameter CLKBMUX = "CLKB";
    parameter GSR = "ENABLED";
    parameter [319:0] INITVAL_00 = 0;
    parameter [319:0] INITVAL_01 = 0;
    parameter [319:0] INITVAL_02 = 0;
    parameter [319:0] INITVAL_03 = 0;
    parameter [319:0] INITVAL_04 = 0;
    parameter [319:0] INITVAL_05 = 0;
    parameter [319:0] INITVAL_06 = 0;
    parameter [319:0] INITVAL_07 = 0;
    parameter [319:0] INITVAL_08 = 0;
    parameter [319:0] INITVAL_09 = 0;
    parameter [319:0] INITVAL_0A = 0;
    parameter [319:0] INITVAL_0B = 0;
    parameter [319:0] INITVAL_0C = 0;
    parameter [319:0] INITVAL_0D = 0;
    parameter [319:0] INITVAL_0E = 0;
    parameter [319:0] INITVAL_0F = 0;
    parameter [319:0] INITVAL_10 = 0;
    parameter [319:0] INITVAL_11 = 0;
    parameter [319:0] INITVAL_12 = 0;
    parameter [319:0] INITVAL_13 = 0;
    parameter [319:0] INITVAL_14 = 0;
    parameter [319:0] INITVAL_15 = 0;
    parameter [319:0] INITVAL_16 = 0;
    parameter [319:0] INITVAL_17 = 0;
    parameter [319:0] INITVAL_18 = 0;
    parameter [319:0] INITVAL_19 = 0;
    parameter [319:0] INITVAL_1A = 0;
    parameter [319:0] INITVAL_1B = 0;
    parameter [319:0] INITVAL_1C = 0;
    parameter [319:0] INITVAL_1D = 0;
    parameter [319:0] INITVAL_1E = 0;
    parameter [319:0] INITVAL_1F = 0;
    parameter [319:0] INITVAL_20 = 0;
    parameter [319:0] INITVAL_21 = 0;
    parameter [319:0] INITVAL_22 = 0;
    parameter [319:0] INITVAL_23 = 0;
    parameter [319:0] INITVAL_24 = 0;
    parameter [319:0] INITVAL_25 = 0;
    parameter [319:0] INITVAL_26 = 0;
    parameter [319:0] INITVAL_27 = 0;
    parameter [319:0] INITVAL_28 = 0;
    parameter [319:0] INITVAL_29 = 0;
    parameter [319:0] INITVAL_2A = 0;
    parameter [319:0] INITVAL_2B = 0;
    parameter [319:0] INITVAL_2C = 0;
    parameter [319:0] INITVAL_2D = 0;
    parameter [319:0] INITVAL_2E = 0;
    parameter [319:0] INITVAL_2F = 0;
    parameter [319:0] INITVAL_30 = 0;
    parameter [319:0] INITVAL_31 = 0;
    parameter [319:0] INITVAL_32 = 0;
    parameter [319:0] INITVAL_33 = 0;
    parameter [319:0] INITVAL_34 = 0;
    parameter [319:0] INITVAL_35 = 0;
    parameter [319:0] INITVAL_36 = 0;
    parameter [319:0] INITVAL_37 = 0;
    parameter [319:0] INITVAL_38 = 0;
    parameter [319:0] INITVAL_39 = 0;
    parameter [319:0] INITVAL_3A = 0;
    parameter [319:0] INITVAL_3B = 0;
    parameter [319:0] INITVAL_3C = 0;
    parameter [319:0] INITVAL_3D = 0;
    parameter [319:0] INITVAL_3E = 0;
    parameter [319:0] INITVAL_3F = 0;
    reg [8:0] words [0:2047];
    reg [17:0] out_a;
    reg [35:0] out_b;

    wire [17:0] in_b = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9,
                        DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0};
    wire [35:0] in_a = {in_b, DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9,
                        DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
    wire [13:0] at_a = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2,
                        ADA1, ADA0};
    wire [13:0] at_b = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2,
                        ADB1, ADB0};
    wire on_a = CEA & ~(CSA2 | CSA1 | CSA0), on_b = CEB & ~(CSB2 | CSB1 | CSB0);
    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9,
            DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0}
        = DATA_WIDTH_B == 36 ? out_b[17:0] : out_a;
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9,
            DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0}
        = DATA_WIDTH_B == 36 ? out_b[35:18] : out_b[17:0];

    // The word of 36 bits that a port's address lies in, and what its narrower ones are of it.
    wire [35:0] wide_a = {words[{at_a[13:5], 2'd3}], words[{at_a[13:5], 2'd2}],
                          words[{at_a[13:5], 2'd1}], words[{at_a[13:5], 2'd0}]};
    wire [35:0] wide_b = {words[{at_b[13:5], 2'd3}], words[{at_b[13:5], 2'd2}],
                          words[{at_b[13:5], 2'd1}], words[{at_b[13:5], 2'd0}]};

    // Where in that word a port's own one begins.
    function [5:0] first(input [13:0] at, input integer width);
        case (width)
            36: first = 0;
            18: first = at[4] ? 18 : 0;
            9: first = 9 * at[4:3];
            4: first = 9 * at[4:3] + {at[2], 2'b00};
            2: first = 9 * at[4:3] + {at[2:1], 1'b0};
            default: first = 9 * at[4:3] + at[2:0];
        endcase
    endfunction

    // Which bits of it a write changes.
    function [35:0] mask(input [13:0] at, input integer width);
        case (width)
            36: mask = {{9{at[3]}}, {9{at[2]}}, {9{at[1]}}, {9{at[0]}}};
            18: mask = {{9{at[1]}}, {9{at[0]}}};
            default: mask = (36'd1 << width) - 1;
        endcase
    endfunction

    wire [5:0] first_a = first(at_a, DATA_WIDTH_A), first_b = first(at_b, DATA_WIDTH_B);
    wire [35:0] writes_a = on_a && WEA ? mask(at_a, DATA_WIDTH_A) << first_a : 0;
    wire [35:0] writes_b = on_b && WEB ? mask(at_b, DATA_WIDTH_B) << first_b : 0;
    wire [35:0] next_a = wide_a & ~writes_a | in_a << first_a & writes_a;
    wire [35:0] next_b = wide_b & ~writes_b | in_b << first_b & writes_b;
    wire same = at_a[13:5] == at_b[13:5];
    wire [35:0] other_a = same ? writes_b & 36'bx : 0, other_b = same ? writes_a & 36'bx : 0;
    wire [35:0] kept_a = (36'd1 << DATA_WIDTH_A) - 1, kept_b = (36'd1 << DATA_WIDTH_B) - 1;

    integer nine_a, nine_b;
    always @(posedge CLKA)
        if (on_a) begin
            for (nine_a = 0; nine_a < 4; nine_a = nine_a + 1)
                if (|writes_a[9 * nine_a +: 9])
                    words[4 * at_a[13:5] + nine_a] <= next_a[9 * nine_a +: 9];
            if (DATA_WIDTH_A == 36)
                out_a <= 18'bx;
            else if (!WEA || WRITEMODE_A == "READBEFOREWRITE")
                out_a <= (wide_a ^ other_a) >> first_a & kept_a;
            else if (WRITEMODE_A == "WRITETHROUGH")
                out_a <= (next_a ^ other_a) >> first_a & kept_a;
        end

    always @(posedge CLKB)
        if (on_b) begin
            for (nine_b = 0; nine_b < 4; nine_b = nine_b + 1)
                if (|writes_b[9 * nine_b +: 9])
                    words[4 * at_b[13:5] + nine_b] <= next_b[9 * nine_b +: 9];
            if (!WEB || WRITEMODE_B == "READBEFOREWRITE")
                out_b <= (wide_b ^ other_b) >> first_b & kept_b;
            else if (WRITEMODE_B == "WRITETHROUGH")
                out_b <= (next_b ^ other_b) >> first_b & kept_b;
            if (WEB && (DATA_WIDTH_A == 36 || DATA_WIDTH_B == 36)) begin
                $display("DP16KD: with ports of 36 bits, port B cannot write");
                $finish;
            end
        end

    // A value has 16 words of 18 bits, each in 20.
    task fill(input integer first, input [319:0] value);
        integer k;
        for (k = 0; k < 16; k = k + 1)
            {words[2 * (first + k) + 1], words[2 * (first + k)]} = value >> 20 * k;
    endtask

    initial begin
        fill(0, INITVAL_00);
        fill(16, INITVAL_01);
        fill(32, INITVAL_02);
        fill(48, INITVAL_03);
        fill(64, INITVAL_04);
        fill(80, INITVAL_05);
        fill(96, INITVAL_06);
        fill(112, INITVAL_07);
        fill(128, INITVAL_08);
        fill(144, INITVAL_09);
        fill(160, INITVAL_0A);
        fill(176, INITVAL_0B);
        fill(192, INITVAL_0C);
        fill(208, INITVAL_0D);
        fill(224, INITVAL_0E);
        fill(240, INITVAL_0F);
        fill(256, INITVAL_10);
        fill(272, INITVAL_11);
        fill(288, INITVAL_12);
        fill(304, INITVAL_13);
        fill(320, INITVAL_14);
        fill(336, INITVAL_15);
        fill(352, INITVAL_16);
        fill(368, INITVAL_17);
        fill(384, INITVAL_18);
        fill(400, INITVAL_19);
        fill(416, INITVAL_1A);
        fill(432, INITVAL_1B);
        fill(448, INITVAL_1C);
        fill(464, INITVAL_1D);
        fill(480, INITVAL_1E);
        fill(496, INITVAL_1F);
        fill(512, INITVAL_20);
        fill(528, INITVAL_21);
        fill(544, INITVAL_22);
        fill(560, INITVAL_23);
        fill(576, INITVAL_24);
        fill(592, INITVAL_25);
        fill(608, INITVAL_26);
        fill(624, INITVAL_27);
        fill(640, INITVAL_28);
        fill(656, INITVAL_29);
        fill(672, INITVAL_2A);
        fill(688, INITVAL_2B);
        fill(704, INITVAL_2C);
        fill(720, INITVAL_2D);
        fill(736, INITVAL_2E);
        fill(752, INITVAL_2F);
        fill(768, INITVAL_30);
        fill(784, INITVAL_31);
        fill(800, INITVAL_32);
        fill(816, INITVAL_33);
        fill(832, INITVAL_34);
        fill(848, INITVAL_35);
        fill(864, INITVAL_36);
        fill(880, INITVAL_37);
        fill(896, INITVAL_38);
        fill(912, INITVAL_39);
        fill(928, INITVAL_3A);
        fill(944, INITVAL_3B);
        fill(960, INITVAL_3C);
        fill(976, INITVAL_3D);
        fill(992, INITVAL_3E);
        fill(1008, INITVAL_3F);
        if (REGMODE_A != "NOREG" || REGMODE_B != "NOREG" || CSDECODE_A != "0b000"
            || CSDECODE_B != "0b000" || CLKAMUX != "CLKA" || CLKBMUX != "CLKB") begin
            $display("DP16KD: this model has no output registers, decoders and clock inverters");
            $finish;
        end
    end

    always @(RSTA or RSTB)
        if (RSTA !== 0 || RSTB !== 0) begin
            $display("DP16KD: this model has no resets");
            $finish;
        end
endmodule
