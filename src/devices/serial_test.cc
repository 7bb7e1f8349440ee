// SPDX-License-Identifier: Apache-2.0
#include "devices/serial.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "devices/test_support.h"

namespace holdfast::devices {
namespace {

using namespace serial;  // NOLINT(google-build-using-namespace): the registers
using testing::Bytes;
using testing::FakeChardev;
using testing::FakeLine;
using testing::In;
using testing::Out;

class SerialTest : public ::testing::Test {
 protected:
  std::uint8_t Reg(std::uint64_t offset) { return static_cast<std::uint8_t>(In(*port_, offset)); }
  void Set(std::uint64_t offset, std::uint8_t value) { Out(*port_, offset, value); }
  void Print(std::string_view text) {
    for (const char c : text) Set(kThr, static_cast<std::uint8_t>(c));
  }
  std::string ReadAll() {
    std::string text;
    while ((Reg(kLsr) & kLsrDataReady) != 0) text += static_cast<char>(Reg(kRbr));
    return text;
  }

  FakeLine irq_;
  FakeChardev far_end_;
  std::optional<Serial> port_{std::in_place, &far_end_, irq_};
};

TEST_F(SerialTest, PrintsWithoutAnySetUp) {
  Print("A\nB");
  EXPECT_EQ(far_end_.output, "A\nB");
  EXPECT_EQ(irq_.rises(), 0);
}

// drivers/tty/serial/8250: autoconfig() finds out what chip this is.
TEST_F(SerialTest, LinuxTakesItForA16550A) {
  Set(kIer, 0);
  EXPECT_EQ(Reg(kIer), 0);
  Set(kIer, 0x0f);
  EXPECT_EQ(Reg(kIer), 0x0f);
  Set(kIer, 0);

  Set(kMcr, kMcrLoop | kMcrOut2 | kMcrRts);
  EXPECT_EQ(Reg(kMsr) & 0xf0, kMsrDcd | kMsrCts) << "loopback test";
  Set(kMcr, 0);

  Set(kLcr, 0xbf);
  EXPECT_NE(Reg(kIir), 0) << "an EFR there would make it a 16650";
  Set(kLcr, 0);
  Set(kFcr, kFcrEnable);
  EXPECT_EQ(Reg(kIir) >> 6, 3) << "FIFOs that work: 16550A";

  Set(kLcr, kLcrDlab);
  const unsigned before = Reg(kIir) >> 5;
  Set(kFcr, kFcrEnable | 0x20);
  EXPECT_EQ(before, 6U);
  EXPECT_EQ(Reg(kIir) >> 5, 6) << "no 64-byte FIFO: not a 16750";
  Set(kLcr, 0);

  Set(kIer, 0x40);
  EXPECT_EQ(Reg(kIer), 0) << "no UUE bit: not an XScale";
}

// serial8250_do_startup() looks for two bugs of old chips.
TEST_F(SerialTest, LinuxFindsNoTransmitterBug) {
  Set(kIer, kIerThrEmpty);
  const unsigned first = Reg(kIir);
  Set(kIer, 0);
  Set(kIer, kIerThrEmpty);
  const unsigned second = Reg(kIir);
  Set(kIer, 0);
  EXPECT_EQ(first & kIirIdMask, kIirThrEmpty);
  EXPECT_EQ(second & kIirIdMask, kIirThrEmpty) << "UART_BUG_THRE: not raised a second time";

  Set(kIer, kIerThrEmpty);
  const unsigned lsr = Reg(kLsr);
  const unsigned iir = Reg(kIir);
  Set(kIer, 0);
  EXPECT_NE(lsr & kLsrTxEmpty, 0U);
  EXPECT_EQ(iir & kIirNone, 0U) << "UART_BUG_TXEN: no interrupt on enabling";
}

TEST_F(SerialTest, LinuxSendsSixteenBytesAnInterrupt) {
  Set(kFcr, kFcrEnable);
  Set(kIer, kIerThrEmpty);
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(Reg(kIir) & kIirIdMask, kIirThrEmpty);
  EXPECT_FALSE(irq_.level()) << "reading IIR acknowledges it";
  Print("0123456789abcdef");
  EXPECT_TRUE(irq_.level()) << "empty again";
  EXPECT_EQ(irq_.rises(), 2) << "one edge for all sixteen: each costs a system call";
  EXPECT_EQ(Reg(kIir) & kIirIdMask, kIirThrEmpty);
  EXPECT_EQ(Reg(kIir) & kIirIdMask, kIirNone);
  EXPECT_EQ(far_end_.output, "0123456789abcdef");
}

TEST_F(SerialTest, ASlowFarEndHoldsTheTransmitterAndLosesNothing) {
  Set(kFcr, kFcrEnable);
  Set(kIer, kIerThrEmpty);
  Reg(kIir);
  far_end_.room = 1;
  Print("a");
  EXPECT_EQ(Reg(kLsr) & (kLsrThrEmpty | kLsrTxEmpty), kLsrThrEmpty | kLsrTxEmpty);
  Reg(kIir);
  Print("bcd");
  EXPECT_EQ(Reg(kLsr) & (kLsrThrEmpty | kLsrTxEmpty), 0);
  EXPECT_EQ(Reg(kIir) & kIirIdMask, kIirNone);

  far_end_.room = 2;
  far_end_.writable();
  EXPECT_EQ(far_end_.output, "abc");
  EXPECT_EQ(Reg(kLsr) & kLsrThrEmpty, 0) << "one still waits";

  far_end_.room = 100;
  far_end_.writable();
  EXPECT_EQ(far_end_.output, "abcd");
  EXPECT_TRUE(irq_.level()) << "empty again";
  EXPECT_EQ(Reg(kLsr) & (kLsrThrEmpty | kLsrTxEmpty), kLsrThrEmpty | kLsrTxEmpty);
}

TEST_F(SerialTest, AGuestThatIgnoresTheStatusLosesWhatIsBeyondTheFifo) {
  Set(kFcr, kFcrEnable);
  far_end_.room = 0;
  Print("0123456789abcdefXYZ");
  far_end_.room = 100;
  far_end_.writable();
  EXPECT_EQ(far_end_.output, "0123456789abcdef");
}

TEST_F(SerialTest, InputFillsTheFifoAndTheRestIsAskedForAgain) {
  Set(kFcr, kFcrEnable);
  EXPECT_EQ(far_end_.receive(Bytes("0123456789abcdefXYZ")), kFifoSize);
  EXPECT_EQ(far_end_.receive(Bytes("XYZ")), 0U);
  EXPECT_EQ(Reg(kRbr), '0');
  EXPECT_EQ(far_end_.receiver_ready, 0) << "not for each byte";
  EXPECT_EQ(ReadAll(), "123456789abcdef");
  EXPECT_EQ(far_end_.receiver_ready, 1);
  EXPECT_EQ(far_end_.receive(Bytes("XYZ")), 3U);
  EXPECT_EQ(ReadAll(), "XYZ");
  EXPECT_EQ(far_end_.receiver_ready, 1) << "nothing was refused";
}

TEST_F(SerialTest, WithoutFifosOneByteFits) {
  EXPECT_EQ(far_end_.receive(Bytes("ab")), 1U);
  EXPECT_EQ(Reg(kRbr), 'a');
  EXPECT_EQ(Reg(kRbr), 0) << "empty";
}

TEST_F(SerialTest, DataBelowTheTriggerLevelIsATimeout) {
  const struct {
    std::size_t bytes;
    std::uint8_t trigger_bits;
    std::uint8_t want;
  } kCases[] = {
      {1, 0, kIirRxData}, {3, 1, kIirRxTimeout},  {4, 1, kIirRxData},  {7, 2, kIirRxTimeout},
      {8, 2, kIirRxData}, {13, 3, kIirRxTimeout}, {14, 3, kIirRxData},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.bytes);
    port_->Reset();
    Set(kFcr, static_cast<std::uint8_t>(kFcrEnable | (c.trigger_bits << kFcrTriggerShift)));
    Set(kIer, kIerRxData);
    far_end_.receive(Bytes(std::string(c.bytes, 'x')));
    EXPECT_TRUE(irq_.level());
    EXPECT_EQ(Reg(kIir), c.want | kIirFifosEnabled);
    EXPECT_TRUE(irq_.level()) << "only reading the data ends it";
    ReadAll();
    EXPECT_FALSE(irq_.level());
  }
}

TEST_F(SerialTest, InterruptsComeInTheirPriority) {
  Set(kFcr, kFcrEnable);
  Set(kIer, kIerMask);
  port_->ReceiveBreak();
  EXPECT_EQ(Reg(kIir) & kIirIdMask, kIirLineStatus);
  EXPECT_EQ(Reg(kLsr) & kLsrBreak, kLsrBreak);
  EXPECT_EQ(Reg(kLsr) & kLsrBreak, 0) << "reading clears it";
  EXPECT_EQ(Reg(kIir) & kIirIdMask, kIirRxData);
  EXPECT_EQ(Reg(kRbr), 0) << "a break is a zero byte";
  EXPECT_EQ(Reg(kIir) & kIirIdMask, kIirThrEmpty);
  EXPECT_EQ(Reg(kIir) & kIirIdMask, kIirNone);
  EXPECT_FALSE(irq_.level());
}

TEST_F(SerialTest, ReadingIirForAnotherReasonKeepsTheTransmittersInterrupt) {
  Set(kIer, kIerThrEmpty | kIerRxData);
  far_end_.receive(Bytes("x"));
  EXPECT_EQ(Reg(kIir) & kIirIdMask, kIirRxData);
  Reg(kRbr);
  EXPECT_EQ(Reg(kIir) & kIirIdMask, kIirThrEmpty);
}

TEST_F(SerialTest, LoopbackTurnsOutputIntoInput) {
  Set(kFcr, kFcrEnable);
  Set(kMcr, kMcrLoop);
  Print("loop");
  EXPECT_EQ(far_end_.output, "");
  EXPECT_EQ(ReadAll(), "loop");
  EXPECT_EQ(far_end_.receive(Bytes("x")), 0U) << "cut off from the line";
  Set(kMcr, 0);
  EXPECT_EQ(far_end_.receiver_ready, 1);
  EXPECT_EQ(far_end_.receive(Bytes("x")), 1U);
}

TEST_F(SerialTest, LoopbackMirrorsTheModemLines) {
  const struct {
    std::uint8_t mcr;
    std::uint8_t msr;
  } kCases[] = {{kMcrDtr, kMsrDsr}, {kMcrRts, kMsrCts}, {kMcrOut1, kMsrRi}, {kMcrOut2, kMsrDcd}};
  for (const auto& c : kCases) {
    Set(kMcr, kMcrLoop | c.mcr);
    EXPECT_EQ(Reg(kMsr), c.msr);
  }
  Set(kMcr, 0);
  EXPECT_EQ(Reg(kMsr), kMsrDcd | kMsrDsr | kMsrCts) << "somebody is always there";
}

TEST_F(SerialTest, OverrunIsReportedOnce) {
  Set(kFcr, kFcrEnable);
  Set(kMcr, kMcrLoop);
  Set(kIer, kIerLineStatus);
  Print("0123456789abcdef!");
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(Reg(kLsr) & kLsrOverrun, kLsrOverrun);
  EXPECT_FALSE(irq_.level());
  EXPECT_EQ(ReadAll(), "0123456789abcdef") << "what was in the FIFO stays";
}

TEST_F(SerialTest, DivisorHidesDataAndInterruptEnable) {
  Set(kIer, kIerRxData);
  Set(kLcr, kLcrDlab | 3);
  EXPECT_EQ(Reg(kDll), kDefaultDivisor);
  Set(kDll, 0x34);
  Set(kDlm, 0x12);
  EXPECT_EQ(Reg(kDll), 0x34);
  EXPECT_EQ(Reg(kDlm), 0x12);
  EXPECT_EQ(Reg(kLcr), kLcrDlab | 3);
  Set(kLcr, 3);
  EXPECT_EQ(Reg(kIer), kIerRxData);
  EXPECT_EQ(far_end_.output, "");
}

TEST_F(SerialTest, ScratchHoldsAndStatusRegistersDoNotTakeWrites) {
  Set(kScr, 0x5a);
  EXPECT_EQ(Reg(kScr), 0x5a);
  Set(kLsr, 0);
  Set(kMsr, 0);
  EXPECT_EQ(Reg(kLsr), kLsrThrEmpty | kLsrTxEmpty);
  EXPECT_EQ(Reg(kMsr), kMsrDcd | kMsrDsr | kMsrCts);
}

TEST_F(SerialTest, FifoControlEmptiesTheFifos) {
  Set(kFcr, kFcrEnable);
  far_end_.receive(Bytes("old"));
  far_end_.room = 0;
  Print("old");
  Set(kFcr, kFcrEnable | kFcrClearRx | kFcrClearTx);
  EXPECT_EQ(Reg(kLsr), kLsrThrEmpty | kLsrTxEmpty);
  far_end_.room = 100;
  far_end_.writable();
  EXPECT_EQ(far_end_.output, "");
}

TEST_F(SerialTest, AWideAccessIsOneToEachRegister) {
  Out<2>(*port_, kLcr, 0x0b03);
  EXPECT_EQ(Reg(kLcr), 0x03);
  EXPECT_EQ(Reg(kMcr), 0x0b);
  EXPECT_EQ(In<2>(*port_, kLcr), 0x0b03U);
  EXPECT_EQ(In<2>(*port_, kScr) >> 8, 0xffU) << "beyond the last register";
}

TEST_F(SerialTest, ResetDropsTheInterruptAndAllState) {
  Set(kFcr, kFcrEnable);
  Set(kIer, kIerRxData);
  far_end_.receive(Bytes("0123456789abcdefX"));
  EXPECT_TRUE(irq_.level());
  port_->Reset();
  EXPECT_FALSE(irq_.level());
  EXPECT_EQ(Reg(kIer), 0);
  EXPECT_EQ(Reg(kIir), kIirNone);
  EXPECT_EQ(far_end_.receiver_ready, 1) << "what was refused may come again";
}

TEST_F(SerialTest, StateMovesToAnotherPortWithItsInterrupt) {
  Set(kFcr, kFcrEnable);
  Set(kIer, kIerRxData);
  Set(kScr, 7);
  far_end_.receive(Bytes("in"));
  far_end_.room = 0;
  Print("out");

  FakeLine irq;
  FakeChardev far_end;
  Serial other(&far_end, irq);
  other.Restore(port_->Save());
  EXPECT_TRUE(irq.level());
  EXPECT_EQ(far_end.output, "out") << "what waited goes to the new far end";
  EXPECT_EQ(In(other, kRbr), std::uint32_t{'i'});
  EXPECT_EQ(In(other, kScr), 7U);
}

TEST_F(SerialTest, AForgedStateIsMadeHarmless) {
  Serial::State state;
  state.rx.head = 200;
  state.rx.size = 200;
  state.tx.head = 255;
  state.tx.size = 255;
  state.ier = 0xff;
  state.fcr = 0xff;
  port_->Restore(state);
  EXPECT_EQ(far_end_.output.size(), kFifoSize);
  EXPECT_EQ(ReadAll().size(), kFifoSize);
  EXPECT_EQ(Reg(kIer), kIerMask);
}

TEST_F(SerialTest, WithNothingConnectedOutputVanishes) {
  port_.emplace(nullptr, irq_);
  Print("into the void");
  EXPECT_EQ(Reg(kLsr), kLsrThrEmpty | kLsrTxEmpty);
}

TEST_F(SerialTest, TakesItsCallbacksBack) {
  port_.reset();
  EXPECT_FALSE(far_end_.receive);
  EXPECT_FALSE(far_end_.writable);
}

}  // namespace
}  // namespace holdfast::devices
