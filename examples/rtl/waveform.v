// A second top module for Icarus Verilog: `+waveform=FILE` has all signals of the engine written there.
`timescale 1ns / 1ps
module waveform;
  reg [8*1024-1:0] file;
  initial if ($value$plusargs("waveform=%s", file)) begin
    $dumpfile(file);
    $dumpvars(0, dma_engine);
  end
endmodule
