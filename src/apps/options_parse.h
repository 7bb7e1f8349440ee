// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "apps/options.h"
#include "control/context.h"

// The options' parsers, by subject. Each takes the argument of one occurrence of its option and
// fails with a sentence that does not name the option: the caller puts that in front.
namespace holdfast::apps {

// options_machine.cc
Status ParseAccel(Options& options, std::string_view argument);
Status ParseEnableKvm(Options& options, std::string_view argument);
Status ParseMachine(Options& options, std::string_view argument);
Status ParseCpu(Options& options, std::string_view argument);

// options_smp.cc
Status ParseSmp(Options& options, std::string_view argument);

// options_numa.cc
Status ParseNuma(Options& options, std::string_view argument);
/// Divides the machine into nodes that must add up to `ram_size` bytes.
Status FinishNuma(Options& options, std::uint64_t ram_size);

// options_memory.cc
Status ParseMemory(Options& options, std::string_view argument);
/// -m size= and -machine memory.size=, in bytes; rounded up as in QEMU, 0 is the default.
Status SetRamSize(Options& options, std::uint64_t size);
Status ParseObject(Options& options, std::string_view argument);
/// Picks the RAM's backends, or makes the default one, and completes the NUMA nodes.
Status FinishMemory(Options& options);

// options_console.cc
Status ParseSerial(Options& options, std::string_view argument);
Status ParseMonitor(Options& options, std::string_view argument);
Status ParseDisplay(Options& options, std::string_view argument);
Status ParseNographic(Options& options, std::string_view argument);
Status ParseVga(Options& options, std::string_view argument);
/// Fills in QEMU's default consoles and finds words that contradict each other.
Status FinishConsoles(Options& options);

// options_control.cc
Status ParseChardev(Options& options, std::string_view argument);
Status ParseMon(Options& options, std::string_view argument);
Status ParseQmp(Options& options, std::string_view argument);
Status ParseQmpPretty(Options& options, std::string_view argument);
/// Marks a -chardev as used; an error where there is none of this id, or it is used already.
Status TakeChardev(Options& options, std::string_view id);
/// Gives the monitors their chardevs.
Status FinishControl(Options& options);

// options_block.cc
Status ParseDrive(Options& options, std::string_view argument);
Status ParseBlockdev(Options& options, std::string_view argument);
/// -hda to -hdd, by number.
Status ParseHardDisk(Options& options, unsigned index, std::string_view argument);
Status ParseCdrom(Options& options, std::string_view argument);
/// Names the drives and asks for the devices that `if=` plugs them into.
Status FinishBlock(Options& options);

// options_device.cc
/// What device-list-properties shows.
std::vector<control::DeviceType> DeviceTypes();
Status ParseDevice(Options& options, std::string_view argument);
Status ParseNoDefaults(Options& options, std::string_view argument);
Status ParseParallel(Options& options, std::string_view argument);

// options_sandbox.cc
Status ParseSandbox(Options& options, std::string_view argument);
Status ParseRunWith(Options& options, std::string_view argument);
Status ParseRunAs(Options& options, std::string_view argument);
Status ParseChroot(Options& options, std::string_view argument);

// options_firmware.cc
Status ParseFwCfg(Options& options, std::string_view argument);
Status ParseSmbios(Options& options, std::string_view argument);

// options_net.cc
Status ParseNetdev(Options& options, std::string_view argument);
Status ParseNic(Options& options, std::string_view argument);
Status ParseNet(Options& options, std::string_view argument);
/// Asks for the cards of -nic and -net, behind those of -device.
Status FinishNet(Options& options);

// options_rtc.cc
Status ParseRtc(Options& options, std::string_view argument);

// options_incoming.cc
Status ParseIncoming(Options& options, std::string_view argument);
Status ParseLoadvm(Options& options, std::string_view argument);

// options_run.cc
/// A UUID in its usual form, letters made small.
Result<std::string> ReadUuid(std::string_view text);
Status ParseAction(Options& options, std::string_view argument);
Status ParseWatchdogAction(Options& options, std::string_view argument);
Status ParseName(Options& options, std::string_view argument);
Status ParseUuid(Options& options, std::string_view argument);
Status ParseMsg(Options& options, std::string_view argument);
Status ParseLogItems(Options& options, std::string_view argument);
Status ParseTrace(Options& options, std::string_view argument);
Status ParseHelp(Options& options, std::string_view argument);
Status ParseVersion(Options& options, std::string_view argument);

}  // namespace holdfast::apps
