// SPDX-License-Identifier: Apache-2.0
#include "apps/option_table.h"

#include "apps/options.h"
#include "apps/options_parse.h"

namespace holdfast::apps {
namespace {

// For an option whose argument is taken as it is.
template <std::string Options::* Member>
Status Take(Options& options, std::string_view argument) {
  options.*Member = argument;
  return {};
}
template <std::string machine::MachineConfig::* Member>
Status TakeForMachine(Options& options, std::string_view argument) {
  options.machine.*Member = argument;
  return {};
}
template <bool machine::MachineConfig::* Member>
Status SwitchMachine(Options& options, std::string_view) {
  options.machine.*Member = true;
  return {};
}
Status Daemonize(Options& options, std::string_view) {
  options.daemonize = true;
  return {};
}
Status ParseSnapshot(Options& options, std::string_view) {
  options.snapshot = true;
  return {};
}
Status MemPrealloc(Options& options, std::string_view) {
  options.mem_prealloc = true;
  return {};
}
template <unsigned Index>
Status HardDisk(Options& options, std::string_view argument) {
  return ParseHardDisk(options, Index, argument);
}
Status Nothing(Options&, std::string_view) {
  return {};
}

using enum OptionSection;

constexpr OptionSpec kTable[] = {
    {"help", {"h", "?"}, "", kStandard, "display this help and exit", ParseHelp},
    {"version", {}, "", kStandard, "display version information and exit", ParseVersion},
    {"machine",
     {"M"},
     "[type=]name[,prop[=value][,...]]",
     kStandard,
     "selects the machine ('-machine help' for a list, '-machine q35,help' for its properties)\n"
     "memory-backend=id names the memory backend that is the machine's RAM",
     ParseMachine},
    {"accel",
     {},
     "[accel=]accelerator[,prop[=value][,...]]",
     kStandard,
     "selects the accelerator; kvm is the only one\ndevice=path (KVM device, default /dev/kvm), "
     "dirty-ring-size=n (how KVM tells which pages the guest writes)",
     ParseAccel},
    {"enable-kvm",
     {},
     "",
     kStandard,
     "the same as -accel kvm, which is the default",
     ParseEnableKvm},
    {"cpu",
     {},
     "model",
     kStandard,
     "selects the CPU ('-cpu help' for a list); the default is host, every feature KVM offers",
     ParseCpu},
    {"smp",
     {},
     "[[cpus=]n][,maxcpus=maxcpus][,sockets=sockets][,cores=cores][,threads=threads]",
     kStandard,
     "sets the number of initial CPUs to n, 1 to 255 (default 1)\nmaxcpus= number of CPUs "
     "including "
     "offline ones\nsockets=, cores=, threads= how they are arranged; what is left out is "
     "calculated, cores first",
     ParseSmp},
    {"m",
     {},
     "[size=]megs[,slots=n,maxmem=size]",
     kStandard,
     "sets the size of the guest's RAM (default 128 MiB; suffixes k, M, G, T). The RAM is a "
     "guest_memfd, as if made by '-object memory-backend-guest-memfd,id=pc.ram,size=size'\n"
     "slots= and maxmem= are accepted: there is no memory to plug in yet",
     ParseMemory},
    {"mem-path",
     {},
     "path",
     kStandard,
     "puts the RAM that -m makes into the file path, or into a file in the folder path",
     Take<&Options::mem_path>},
    {"mem-prealloc",
     {},
     "",
     kStandard,
     "allocates the RAM that -m makes at the start",
     MemPrealloc},
    {"numa",
     {},
     "node|dist|cpu|hmat-lb|hmat-cache[,prop[=value][,...]]",
     kStandard,
     "divides the machine into NUMA nodes ('-numa help' for the properties)\n"
     "node[,memdev=id][,cpus=firstcpu[-lastcpu]][,nodeid=node][,initiator=node] makes a node of "
     "the "
     "CPUs and of the memory of a backend; the nodes' memory adds up to -m\n"
     "dist,src=source,dst=destination,val=distance sets the distance between two nodes\n"
     "cpu,node-id=node[,socket-id=x][,core-id=y][,thread-id=z] puts CPUs into a node\n"
     "hmat-lb,initiator=node,target=node,hierarchy=memory|first-level|second-level|third-level,"
     "data-type=access-latency|read-latency|write-latency|access-bandwidth|read-bandwidth|"
     "write-bandwidth[,latency=ns][,bandwidth=bytes] and hmat-cache,node-id=node,size=size,"
     "level=level,associativity=none|direct|complex,policy=none|write-back|write-through,line=size "
     "describe the memory (with -machine hmat=on)",
     ParseNuma},
    {"object",
     {},
     "typename[,prop[=value][,...]]",
     kStandard,
     "creates an object ('-object help' for the types, '-object typename,help' for the "
     "properties)\nmemory-backend-guest-memfd,id=id,size=size[,bind=auto|on|off] is guest memory "
     "for -machine memory-backend=id and -numa node,memdev=id; so are memory-backend-memfd, -file, "
     "-shm and -ram. All have [,prealloc=on|off] and [,policy=bind,host-nodes=list]",
     ParseObject},
    {"name",
     {},
     "[guest=]string[,process=string][,debug-threads=on|off]",
     kStandard,
     "sets the name of the guest, and of the process",
     ParseName},
    {"uuid",
     {},
     "uuid",
     kStandard,
     "sets the guest's UUID, as SMBIOS and the monitor show it",
     ParseUuid},

    {"kernel",
     {},
     "file",
     kBoot,
     "boots this kernel: a bzImage, or an ELF file with a PVH entry",
     TakeForMachine<&machine::MachineConfig::kernel>},
    {"append",
     {},
     "cmdline",
     kBoot,
     "the kernel's command line",
     TakeForMachine<&machine::MachineConfig::cmdline>},
    {"initrd",
     {},
     "file",
     kBoot,
     "the kernel's initial RAM disk",
     TakeForMachine<&machine::MachineConfig::initrd>},

    {"nographic",
     {},
     "",
     kConsole,
     "no display; COM1 and the monitor share the terminal (-serial mon:stdio). This is also what "
     "happens without -nographic and -display, because Holdfast has no window: QEMU would put "
     "both into its own",
     ParseNographic},
    {"display",
     {},
     "none",
     kConsole,
     "no display; COM1 goes nowhere unless -serial says otherwise",
     ParseDisplay},
    {"serial",
     {},
     "dev",
     kConsole,
     "connects the next serial port, COM1 to COM4, to dev: stdio, mon:stdio (shared with the "
     "monitor; Ctrl-a h shows the keys), file:path, pty, unix:path[,server=on|off][,wait=on|off], "
     "null, none (no such port)",
     ParseSerial},
    {"monitor",
     {},
     "dev",
     kConsole,
     "puts the monitor prompt on dev, named as for -serial",
     ParseMonitor},
    {"chardev",
     {},
     "backend,id=id[,prop=value][,...]",
     kConsole,
     "makes a character device for -mon, -serial chardev:id or -monitor chardev:id: "
     "socket,path=path or socket,host=host,port=port, both with [,server=on|off][,wait=on|off]"
     "[,reconnect=seconds]; "
     "file,path=path; stdio[,signal=on|off]; pty; null",
     ParseChardev},
    {"mon",
     {},
     "[chardev=]id[,mode=readline|control][,pretty=on|off]",
     kConsole,
     "puts the monitor prompt, or with mode=control the control protocol QMP, on a chardev",
     ParseMon},
    {"qmp",
     {},
     "dev",
     kConsole,
     "serves the control protocol QMP on dev: unix:path[,server=on|off][,wait=on|off], "
     "tcp:[host]:port with the same, stdio, pty, chardev:id. Several clients may be connected to "
     "one server at once. There is no password: without host only this machine can connect",
     ParseQmp},
    {"qmp-pretty", {}, "dev", kConsole, "like -qmp, in lines for people", ParseQmpPretty},
    {"vga", {}, "none", kConsole, "accepted: there is no graphics adapter", ParseVga},

    {"drive",
     {},
     "[file=file][,if=type][,index=i][,media=d][,format=f][,id=name][,cache=c][,aio=a][,readonly="
     "on|"
     "off][,discard=d][,snapshot=on|off][,detect-zeroes=z][,rerror=e][,werror=e][,throttling."
     "option=value]",
     kDevices,
     "makes a drive of a raw image or block device, and a disk in the guest: with if=virtio a "
     "virtio-blk-pci, with if=ide (the default) or if=scsi a scsi-hd or scsi-cd on a "
     "virtio-scsi-pci "
     "of its own; if=none leaves it to "
     "-device\ncache=none|writeback|writethrough|unsafe|directsync "
     "and aio=io_uring|native|threads say how the host reads and writes it (native is io_uring); "
     "discard=unmap gives freed room back; snapshot=on is -snapshot for this drive",
     ParseDrive},
    {"snapshot",
     {},
     "",
     kDevices,
     "forgets in the end what the guest wrote to drives that do not say snapshot=off. Their "
     "changes "
     "are kept in temporary images in the folder of the environment variable TMPDIR, or /var/tmp",
     ParseSnapshot},
    {"blockdev",
     {},
     "[driver=]driver[,node-name=name][,read-only=on|off][,cache.direct=on|off][,discard=ignore|"
     "unmap][,driver specific parameters...]",
     kDevices,
     "makes a block node for -device virtio-blk-pci,drive=name: file and host_device with "
     "filename=, raw with file=, null-co with size=, and qcow2 and other formats with file= and "
     "backing=, which qemu-storage-daemon reads; also as JSON",
     ParseBlockdev},
    {"hda",
     {},
     "file",
     kDevices,
     "the first disk, as -drive file=file,index=0,media=disk; so -hdb to -hdd, and a file name "
     "alone",
     HardDisk<0>},
    {"hdb", {}, "file", kDevices, "the second disk", HardDisk<1>},
    {"hdc", {}, "file", kDevices, "the third disk", HardDisk<2>},
    {"hdd", {}, "file", kDevices, "the fourth disk", HardDisk<3>},
    {"cdrom",
     {},
     "file",
     kDevices,
     "a CD-ROM image, as -drive file=file,index=2,media=cdrom",
     ParseCdrom},
    {"device",
     {},
     "driver[,prop[=value][,...]]",
     kDevices,
     "adds a device ('-device help' for a list, '-device driver,help' for its properties)",
     ParseDevice},
    {"fw_cfg",
     {},
     "[name=]name,file=file|string=text",
     kDevices,
     "gives the guest a named item: a file's contents, or the text. Linux shows it under "
     "/sys/firmware/qemu_fw_cfg; names of users start with opt/",
     ParseFwCfg},
    {"smbios",
     {},
     "file=file|type=n[,field=value][,...]",
     kDevices,
     "sets fields of the SMBIOS tables ('-smbios help' lists them), or adds a structure from a "
     "file\n"
     "type=0 firmware, 1 system (serial=, uuid=, family=, sku= …; cloud-init reads ds=nocloud… "
     "from serial=), 2 board, 3 chassis, 4 processor, 11 OEM strings (value=text, path=file), "
     "17 memory device",
     ParseSmbios},
    {"nodefaults", {}, "", kDevices, "no serial port and no monitor by default", ParseNoDefaults},
    {"no-user-config", {}, "", kDevices, "accepted: there are no configuration files", Nothing},
    {"netdev",
     {},
     "user|tap|stream|dgram|socket|vhost-user,id=id[,prop=value][,...]",
     kDevices,
     "makes a network back end for -device virtio-net-pci,netdev=id ('-netdev help' for a list, "
     "'-netdev type,help' for its properties); also as JSON\n"
     "user,id=id[,net=addr/mask][,restrict=on|off][,hostfwd=[tcp|udp]:[hostaddr]:hostport-"
     "[guestaddr]:guestport] is a network of its own with DHCP and a name server, and needs no "
     "rights\n"
     "tap,id=id[,ifname=name][,script=file|no][,downscript=file|no][,queues=n][,fd=h] is an "
     "interface of the host\n"
     "stream,id=id,addr.type=unix|inet[,addr.path=path][,addr.host=host,addr.port=port]"
     "[,server=on|off][,reconnect=seconds] and dgram are sockets to other machines\n"
     "vhost-user,id=id,chardev=id[,queues=n] is another process that serves the card's queues",
     ParseNetdev},
    {"nic",
     {},
     "none|type[,model=virtio-net-pci][,mac=addr][,prop=value][,...]",
     kDevices,
     "makes a network back end as -netdev and a card for it. Holdfast makes none by itself, so "
     "that none only says what is so anyway",
     ParseNic},
    {"net",
     {},
     "none|nic|type[,prop=value][,...]",
     kDevices,
     "the same in two: -net nic makes the card, -net user or another type its back end",
     ParseNet},
    {"parallel", {}, "none", kDevices, "accepted: there are no parallel ports", ParseParallel},

    {"S",
     {},
     "",
     kRun,
     "does not start the CPUs ('cont' in the monitor does)",
     SwitchMachine<&machine::MachineConfig::start_paused>},
    {"no-reboot",
     {},
     "",
     kRun,
     "exits instead of rebooting",
     SwitchMachine<&machine::MachineConfig::no_reboot>},
    {"no-shutdown",
     {},
     "",
     kRun,
     "stops the CPUs instead of exiting when the guest powers off",
     SwitchMachine<&machine::MachineConfig::no_shutdown>},
    {"incoming",
     {},
     "defer|tcp:host:port|unix:path|fd:number|exec:command|"
     "file:path[,prefault=on|off][,bandwidth=size][,new-mac=on|off]|{json channel}",
     kRun,
     "waits for a guest that another monitor sends ('migrate'), there or where migrate-incoming "
     "says; file: goes on where the machine stood that the snapshot is of; a channel of the type "
     "cpr takes over the guest of a monitor of this host with its memory. Its other options are "
     "repeated here",
     ParseIncoming},
    {"loadvm", {}, "name", kRun, "the same with what savevm NAME has saved", ParseLoadvm},
    {"rtc",
     {},
     "[base=utc|localtime|date][,clock=host|rt|vm][,driftfix=none]",
     kRun,
     "what the guest's clock shows at the start (UTC), and what it goes by",
     ParseRtc},
    {"action",
     {},
     "reboot=reset|shutdown|shutdown=poweroff|pause|panic=pause|shutdown|exit-failure|none|"
     "watchdog=reset|shutdown|poweroff|pause|debug|none|inject-nmi",
     kRun,
     "what to do when the guest reboots, powers off or panics, or its watchdog runs out",
     ParseAction},
    {"watchdog-action",
     {},
     "reset|shutdown|poweroff|pause|debug|none|inject-nmi",
     kRun,
     "the same as -action watchdog=",
     ParseWatchdogAction},

    {"daemonize",
     {},
     "",
     kHost,
     "goes into the background once the guest is built; the exit status says whether it was",
     Daemonize},
    {"pidfile",
     {},
     "file",
     kHost,
     "writes the process id to file, locks it, and removes it at the end",
     Take<&Options::pidfile>},
    {"sandbox",
     {},
     "on|off[,obsolete=allow|deny][,elevateprivileges=allow|deny|children][,spawn=allow|deny]"
     "[,resourcecontrol=allow|deny]",
     kHost,
     "on: once all is built, the process gives up its capabilities and may only make the system "
     "calls that each kind of thread needs; any other ends it with a sentence. What the further "
     "words name is forbidden unless they allow it",
     ParseSandbox},
    {"run-with",
     {},
     "[async-teardown=on|off][,chroot=dir][,user=user]",
     kHost,
     "before the guest starts: changes the root of the file system to dir, becomes user (a name or "
     "uid:gid), and leaves it to a process of its own to give the guest's memory back at the end",
     ParseRunWith},
    {"runas", {}, "user", kHost, "the same as -run-with user=user", ParseRunAs},
    {"chroot", {}, "dir", kHost, "the same as -run-with chroot=dir", ParseChroot},

    {"D",
     {},
     "file",
     kDebug,
     "writes the log of -d and -trace to file instead of stderr",
     Take<&Options::log_file>},
    {"d", {}, "item1[,...]", kDebug, "logs these items ('-d help' for a list)", ParseLogItems},
    {"trace",
     {},
     "[[enable=]pattern][,events=file][,file=file]",
     kDebug,
     "turns trace events on ('-trace help' for a list)",
     ParseTrace},
    {"msg",
     {},
     "[timestamp[=on|off]][,guest-name[=on|off]]",
     kDebug,
     "what messages start with",
     ParseMsg},
};

}  // namespace

std::string_view SectionTitle(OptionSection section) noexcept {
  switch (section) {
    case kStandard:
      return "Standard options";
    case kBoot:
      return "Boot options";
    case kConsole:
      return "Console options";
    case kDevices:
      return "Device options";
    case kRun:
      return "Run control options";
    case kHost:
      return "Process options";
    case kDebug:
      break;
  }
  return "Debug options";
}

std::span<const OptionSpec> OptionTable() noexcept {
  return kTable;
}

const OptionSpec* FindOption(std::string_view name) noexcept {
  if (name.empty()) return nullptr;
  for (const OptionSpec& option : kTable) {
    if (name == option.name || name == option.aliases[0] || name == option.aliases[1]) {
      return &option;
    }
  }
  return nullptr;
}

}  // namespace holdfast::apps
