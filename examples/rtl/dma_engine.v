// A DMA engine: copies LENGTH bytes of host memory from SOURCE to TARGET and adds them up.
//
// Three interfaces, all on one clock:
//   bus_*   registers, by 32-bit words: a beat is over at the edge where bus_valid and bus_ready are both 1
//   dma_*   host memory: 1 to 8 bytes at any address, in the low lanes; over where dma_valid and dma_ready are both 1
//   irq     vectors 0 (done) and 1 (failed), each 1 for one cycle
module dma_engine (
    input  wire        clk,
    input  wire        reset,

    input  wire        bus_valid,
    output wire        bus_ready,
    input  wire        bus_write,
    input  wire [9:0]  bus_word,
    input  wire [3:0]  bus_strobes,
    input  wire [31:0] bus_wdata,
    output reg  [31:0] bus_rdata,

    output wire        dma_valid,
    input  wire        dma_ready,
    output wire        dma_write,
    output wire [63:0] dma_address,
    output wire [3:0]  dma_bytes,
    output wire [63:0] dma_wdata,
    input  wire [63:0] dma_rdata,
    input  wire        dma_error,

    output reg  [1:0]  irq,
    output wire        busy
);
  localparam [31:0] ID = 32'hd3a1_0001;
  localparam [1:0] IDLE = 0, READ = 1, WRITE = 2;

  reg [1:0]  state;
  reg        done, failed;
  reg [15:0] length, left;
  reg [63:0] source, target, from, to, data;
  reg [31:0] sum;

  assign bus_ready = 1'b1;
  assign busy = state != IDLE;
  assign dma_valid = busy;
  assign dma_write = state == WRITE;
  assign dma_address = dma_write ? to : from;
  assign dma_bytes = left < 8 ? left[3:0] : 4'd8;
  assign dma_wdata = data;

  // What a write makes of a register: the lanes with a strobe are new.
  function [31:0] merged(input [31:0] old);
    merged = {
      bus_strobes[3] ? bus_wdata[31:24] : old[31:24],
      bus_strobes[2] ? bus_wdata[23:16] : old[23:16],
      bus_strobes[1] ? bus_wdata[15:8] : old[15:8],
      bus_strobes[0] ? bus_wdata[7:0] : old[7:0]
    };
  endfunction

  // The sum of the bytes that are meant.
  function [31:0] sum_of(input [63:0] bytes, input [3:0] count);
    integer i;
    begin
      sum_of = 0;
      for (i = 0; i < 8; i = i + 1) if (i < {28'd0, count}) sum_of = sum_of + {24'd0, bytes[i*8+:8]};
    end
  endfunction

  always @* begin
    case ({bus_word, 2'b00})
      12'h000: bus_rdata = ID;
      12'h008: bus_rdata = {29'd0, failed, done, busy};
      12'h00c: bus_rdata = {16'd0, length};
      12'h010: bus_rdata = source[31:0];
      12'h014: bus_rdata = source[63:32];
      12'h018: bus_rdata = target[31:0];
      12'h01c: bus_rdata = target[63:32];
      12'h020: bus_rdata = sum;
      default: bus_rdata = 32'd0;
    endcase
  end

  wire write = bus_valid && bus_write;

  always @(posedge clk) begin
    irq <= 2'b00;
    if (write) begin
      case ({bus_word, 2'b00})
        12'h004:
        if (bus_strobes[0] && bus_wdata[0] && !busy) begin
          from <= source;
          to <= target;
          left <= length;
          sum <= 32'd0;
          if (length == 0) begin
            done <= 1'b1;
            irq[0] <= 1'b1;
          end else state <= READ;
        end
        12'h008:
        if (bus_strobes[0]) begin
          if (bus_wdata[1]) done <= 1'b0;
          if (bus_wdata[2]) failed <= 1'b0;
        end
        12'h00c: begin
          if (bus_strobes[0]) length[7:0] <= bus_wdata[7:0];
          if (bus_strobes[1]) length[15:8] <= bus_wdata[15:8];
        end
        12'h010: source[31:0] <= merged(source[31:0]);
        12'h014: source[63:32] <= merged(source[63:32]);
        12'h018: target[31:0] <= merged(target[31:0]);
        12'h01c: target[63:32] <= merged(target[63:32]);
        default: ;
      endcase
    end
    if (dma_valid && dma_ready) begin
      if (dma_error) begin
        state <= IDLE;
        failed <= 1'b1;
        irq[1] <= 1'b1;
      end else if (state == READ) begin
        state <= WRITE;
        data <= dma_rdata;
      end else begin
        from <= from + {60'd0, dma_bytes};
        to <= to + {60'd0, dma_bytes};
        left <= left - {12'd0, dma_bytes};
        sum <= sum + sum_of(data, dma_bytes);
        state <= READ;
        if (left == {12'd0, dma_bytes}) begin
          state <= IDLE;
          done <= 1'b1;
          irq[0] <= 1'b1;
        end
      end
    end
    if (reset) begin
      state <= IDLE;
      {done, failed} <= 2'b00;
      {length, left} <= 32'd0;
      {source, target, from, to, data} <= 320'd0;
      sum <= 32'd0;
      irq <= 2'b00;
    end
  end
endmodule
