// SPDX-License-Identifier: Apache-2.0
// -netdev, -nic and -net.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/options.h"

namespace holdfast::apps {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

Result<Options> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), {"-kernel", "k"});
  return ParseCommandLine(arguments);
}

// The card that was made, and its words.
std::string CardOf(const Options& options) {
  std::string text;
  for (const devices::DeviceRequest& device : options.machine.devices) {
    text += device.model->name;
    for (const auto& [key, value, bare, implied] : device.values) {
      text += "," + key + "=" + value;
    }
  }
  return text;
}

TEST(NetOptions, NetdevsComeInBothForms) {
  for (const char* const argument : {"user,id=net0,hostfwd=tcp::1-:2,hostfwd=tcp::3-:4,restrict=on",
                                     R"({"type": "user", "id": "net0", "restrict": true,
            "hostfwd": [{"str": "tcp::1-:2"}, {"str": "tcp::3-:4"}]})"}) {
    SCOPED_TRACE(argument);
    const auto options = Parse({"-netdev", argument});
    ASSERT_TRUE(options) << options.error().ToString();
    ASSERT_EQ(options->net.netdevs.size(), 1U);
    const devices::net::NetdevConfig& config = options->net.netdevs[0].config;
    EXPECT_EQ(config.id, "net0");
    const auto& user = std::get<devices::net::UserConfig>(config.what);
    EXPECT_TRUE(user.restricted);
    EXPECT_EQ(user.forwards.size(), 2U);
  }
  const auto nested = Parse({"-netdev", R"({"type": "stream", "id": "s", "server": true,
                                            "addr": {"type": "unix", "path": "/x"}})"});
  ASSERT_TRUE(nested) << nested.error().ToString();
}

TEST(NetOptions, NicMakesACardAndItsBackEnd) {
  const struct {
    std::vector<const char*> arguments;
    const char* card;
  } kCases[] = {
      {{"-nic", "user"}, "virtio-net-pci,netdev=__org.qemu.nic0"},
      {{"-nic", "user,model=virtio,mac=52:54:00:00:00:01,hostfwd=tcp::1-:2"},
       "virtio-net-pci,mac=52:54:00:00:00:01,netdev=__org.qemu.nic0"},
      {{"-nic", "user,id=n,model=virtio-net-pci"}, "virtio-net-pci,netdev=n"},
      {{"-net", "nic,macaddr=52:54:00:00:00:01", "-net", "user"},
       "virtio-net-pci,mac=52:54:00:00:00:01,netdev=__org.qemu.net0"},
      {{"-netdev", "user,id=n", "-net", "nic,netdev=n"}, "virtio-net-pci,netdev=n"},
      {{"-nic", "none"}, ""},
      {{"-net", "none"}, ""},
      {{"-net", "user"}, ""},
      {{}, ""},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.card);
    const auto options = Parse(c.arguments);
    ASSERT_TRUE(options) << options.error().ToString();
    EXPECT_EQ(CardOf(*options), c.card);
  }
}

TEST(NetOptions, MistakesNameOptionAndValue) {
  const struct {
    std::vector<const char*> arguments;
    const char* message;
  } kCases[] = {
      {{"-netdev", "user"}, "-netdev user: Parameter 'id' is missing"},
      {{"-netdev", "user,id=n", "-netdev", "user,id=n"},
       "-netdev user,id=n: Duplicate ID 'n' for netdev"},
      {{"-netdev", "usr,id=n"}, "-netdev usr,id=n: Parameter 'type' does not accept value 'usr'"},
      {{"-netdev", R"({"type": "user", "id": "n", "restrict": null})"}, "-netdev {"},
      {{"-nic", "user,model=e1000"},
       "-nic user,model=e1000: QEMU may have the network card 'e1000'"},
      {{"-nic", "user,mac=nonsense"},
       "-nic user,mac=nonsense: Property 'virtio-net-pci.mac' doesn't take value 'nonsense'"},
      {{"-net", "nic", "-net", "nic"}, "QEMU joins several -net by a hub"},
      {{"-device", "virtio-net-pci,rx_queue_size=300"},
       "-device virtio-net-pci,rx_queue_size=300: Invalid rx_queue_size (= 300)"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.message);
    const auto options = Parse(c.arguments);
    ASSERT_FALSE(options);
    EXPECT_THAT(options.error().message(), StartsWith(c.message));
    EXPECT_FALSE(options.error().hint().empty());
  }
}

TEST(NetOptions, HelpListsTypesAndProperties) {
  const auto types = Parse({"-netdev", "help"});
  ASSERT_TRUE(types && types->print);
  EXPECT_THAT(*types->print, HasSubstr("\nstream\n"));
  const auto user = Parse({"-nic", "user,help"});
  ASSERT_TRUE(user && user->print);
  EXPECT_THAT(*user->print, HasSubstr("hostfwd="));
}

}  // namespace
}  // namespace holdfast::apps
