// SPDX-License-Identifier: Apache-2.0
// Network back ends and cards: netdev_add, netdev_del, set_link, query-rx-filter, announce-self,
// and their events.
#include <algorithm>

#include "control/qmp_commands.h"
#include "devices/net/network.h"

namespace holdfast::control {
namespace {

using devices::net::MacText;
using devices::net::Nic;
using devices::net::RxFilter;

QmpResult NetdevAdd(VmContext& vm, const Json& arguments) {
  HF_QMP_TRY(const object::KeyValues values, devices::net::NetdevValues(arguments));
  HF_QMP_TRY(const devices::net::NetdevConfig config, devices::net::ParseNetdev(values));
  HF_QMP_TRY_STATUS(vm.network->Add(config));
  return Json::object();
}

QmpResult NetdevDel(VmContext& vm, const Json& arguments) {
  const auto id = arguments["id"].get<std::string>();
  if (vm.network->Find(id) == nullptr) {
    return QmpFail(QmpErrorClass::kDeviceNotFound, "Device '" + id + "' not found");
  }
  HF_QMP_TRY_STATUS(vm.network->Remove(id));
  return Json::object();
}

QmpResult SetLink(VmContext& vm, const Json& arguments) {
  const auto name = arguments["name"].get<std::string>();
  Nic* const nic = vm.network->FindNic(name);
  if (nic == nullptr) {
    return QmpFail(QmpErrorClass::kDeviceNotFound, "Device '" + name + "' not found");
  }
  nic->SetLink(arguments["up"].get<bool>());
  return Json::object();
}

std::string_view State(bool none, bool all) {
  if (none) return "none";
  return all ? "all" : "normal";
}

Json RxFilterInfo(Nic& nic) {
  const RxFilter filter = nic.rx_filter();
  const auto texts = [](const std::vector<devices::net::MacAddress>& macs) {
    Json list = Json::array();
    for (const auto& mac : macs) list.push_back(MacText(mac));
    return list;
  };
  return Json{{"name", nic.nic_name()},
              {"promiscuous", filter.promiscuous},
              {"multicast", State(filter.no_multicast, filter.all_multicast)},
              {"unicast", State(filter.no_unicast, filter.all_unicast)},
              {"vlan", filter.filters_vlans ? "normal" : "all"},
              {"broadcast-allowed", !filter.no_broadcast},
              {"multicast-overflow", filter.multicast_overflow},
              {"unicast-overflow", filter.unicast_overflow},
              {"main-mac", MacText(filter.main_mac)},
              {"vlan-table", filter.vlans},
              {"unicast-table", texts(filter.unicast)},
              {"multicast-table", texts(filter.multicast)}};
}

QmpResult QueryRxFilter(VmContext& vm, const Json& arguments) {
  Json list = Json::array();
  const std::string wanted = arguments.value("name", std::string());
  for (Nic* const nic : vm.network->nics()) {
    if (wanted.empty() || nic->nic_name() == wanted) list.push_back(RxFilterInfo(*nic));
  }
  if (list.empty() && !wanted.empty()) return QmpFail("invalid net client name: " + wanted);
  return list;
}

QmpResult AnnounceSelf(VmContext& vm, const Json& arguments) {
  devices::net::AnnounceTimes times;
  times.initial = std::chrono::milliseconds(arguments["initial"].get<std::int64_t>());
  times.longest = std::chrono::milliseconds(arguments["max"].get<std::int64_t>());
  times.rounds = arguments["rounds"].get<std::int64_t>();
  times.step = std::chrono::milliseconds(arguments["step"].get<std::int64_t>());
  const Json interfaces = arguments.value("interfaces", Json::array());
  for (const Json& name : interfaces) times.cards.push_back(name.get<std::string>());
  times.id = arguments.value("id", std::string());
  HF_QMP_TRY_STATUS(vm.network->Announce(std::move(times)));
  return Json::object();
}

void DefineNetdev(Schema& schema) {
  schema.Enum("NetClientDriver",
              {"none", "nic", "user", "tap", "l2tpv3", "socket", "stream", "dgram", "vde", "bridge",
               "hubport", "netmap", "vhost-user", "vhost-vdpa", "passt", "af-xdp"});
  schema.Struct("String", {{"str", "str"}});
  schema.Struct("NetdevUserOptions", {{"hostname?", "str"},
                                      {"restrict?", "bool"},
                                      {"ipv4?", "bool"},
                                      {"ipv6?", "bool"},
                                      {"net?", "str"},
                                      {"host?", "str"},
                                      {"tftp?", "str"},
                                      {"bootfile?", "str"},
                                      {"dhcpstart?", "str"},
                                      {"dns?", "str"},
                                      {"dnssearch?", "[String]"},
                                      {"domainname?", "str"},
                                      {"ipv6-prefix?", "str"},
                                      {"ipv6-prefixlen?", "int"},
                                      {"ipv6-host?", "str"},
                                      {"ipv6-dns?", "str"},
                                      {"hostfwd?", "[String]"},
                                      {"tftp-server-name?", "str"}});
  schema.Struct("NetdevTapOptions", {{"ifname?", "str"},
                                     {"fd?", "str"},
                                     {"fds?", "str"},
                                     {"script?", "str"},
                                     {"downscript?", "str"},
                                     {"vnet_hdr?", "bool"},
                                     {"vhost?", "bool"},
                                     {"queues?", "uint32"}});
  schema.Struct("NetdevSocketOptions", {{"fd?", "str"},
                                        {"listen?", "str"},
                                        {"connect?", "str"},
                                        {"localaddr?", "str"},
                                        {"udp?", "str"}});
  schema.Enum("SocketAddressType", {"inet", "unix", "vsock", "fd"});
  schema.Struct("InetSocketAddress", {{"host", "str"}, {"port", "str"}});
  schema.Struct("UnixSocketAddress", {{"path", "str"}});
  schema.Struct("FdSocketAddress", {{"str", "str"}});
  schema.Union(
      "SocketAddress", {{"type", "SocketAddressType"}}, "type",
      {{"inet", "InetSocketAddress"}, {"unix", "UnixSocketAddress"}, {"fd", "FdSocketAddress"}});
  schema.Struct("NetdevStreamOptions", {{"addr", "SocketAddress"},
                                        {"server?", "bool"},
                                        {"reconnect?", "int"},
                                        {"reconnect-ms?", "int"}});
  schema.Struct("NetdevDgramOptions", {{"local?", "SocketAddress"}, {"remote?", "SocketAddress"}});
  schema.Struct("NetdevVhostUserOptions",
                {{"chardev", "str"}, {"vhostforce?", "bool"}, {"queues?", "int"}});
  schema.Union("Netdev", {{"id", "str"}, {"type", "NetClientDriver"}}, "type",
               {{"user", "NetdevUserOptions"},
                {"tap", "NetdevTapOptions"},
                {"socket", "NetdevSocketOptions"},
                {"stream", "NetdevStreamOptions"},
                {"dgram", "NetdevDgramOptions"},
                {"vhost-user", "NetdevVhostUserOptions"}});
  schema.AddCommand("netdev_add", {.arguments = "Netdev", .run = NetdevAdd});
  schema.Struct("NetdevDelArguments", {{"id", "str"}});
  schema.AddCommand("netdev_del", {.arguments = "NetdevDelArguments", .run = NetdevDel});
  schema.Struct("NetdevStreamConnected", {{"netdev-id", "str"}, {"addr", "SocketAddress"}});
  schema.AddEvent("NETDEV_STREAM_CONNECTED", "NetdevStreamConnected");
  schema.Struct("NetdevStreamDisconnected", {{"netdev-id", "str"}});
  schema.AddEvent("NETDEV_STREAM_DISCONNECTED", "NetdevStreamDisconnected");
  schema.Struct("NetdevVhostUserConnected", {{"netdev-id", "str"}, {"chardev-id", "str"}});
  schema.AddEvent("NETDEV_VHOST_USER_CONNECTED", "NetdevVhostUserConnected");
  schema.Struct("NetdevVhostUserDisconnected", {{"netdev-id", "str"}});
  schema.AddEvent("NETDEV_VHOST_USER_DISCONNECTED", "NetdevVhostUserDisconnected");
}

}  // namespace

void DefineNetCommands(Schema& schema) {
  DefineNetdev(schema);
  schema.Struct("SetLinkArguments", {{"name", "str"}, {"up", "bool"}});
  schema.AddCommand("set_link", {.arguments = "SetLinkArguments", .run = SetLink});
  schema.Enum("RxState", {"normal", "none", "all"});
  schema.Struct("RxFilterInfo", {{"name", "str"},
                                 {"promiscuous", "bool"},
                                 {"multicast", "RxState"},
                                 {"unicast", "RxState"},
                                 {"vlan", "RxState"},
                                 {"broadcast-allowed", "bool"},
                                 {"multicast-overflow", "bool"},
                                 {"unicast-overflow", "bool"},
                                 {"main-mac", "str"},
                                 {"vlan-table", "[int]"},
                                 {"unicast-table", "[str]"},
                                 {"multicast-table", "[str]"}});
  schema.Struct("QueryRxFilterArguments", {{"name?", "str"}});
  schema.AddCommand(
      "query-rx-filter",
      {.arguments = "QueryRxFilterArguments", .result = "[RxFilterInfo]", .run = QueryRxFilter});
  schema.Struct("AnnounceParameters", {{"initial", "int"},
                                       {"max", "int"},
                                       {"rounds", "int"},
                                       {"step", "int"},
                                       {"interfaces?", "[str]"},
                                       {"id?", "str"}});
  schema.AddCommand("announce-self", {.arguments = "AnnounceParameters", .run = AnnounceSelf});
  schema.Struct("NicRxFilterChanged", {{"name?", "str"}, {"path", "str"}});
  schema.AddEvent("NIC_RX_FILTER_CHANGED", "NicRxFilterChanged");
}

}  // namespace holdfast::control
