// SPDX-License-Identifier: Apache-2.0
// -chardev, -mon, -qmp and -qmp-pretty: what they accept, the defaults, each refusal.
#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "apps/options.h"

namespace holdfast::apps {
namespace {

Result<Options> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), {"-kernel", "k"});
  return ParseCommandLine(arguments);
}

TEST(OptionsControlTest, QmpMakesAChardevAndAMonitorOnIt) {
  const auto options = Parse({"-qmp", "unix:/a,server=on,wait=off", "-qmp-pretty", "stdio"});
  ASSERT_TRUE(options) << options.error().ToString();
  ASSERT_EQ(options->chardevs.size(), 2U);
  ASSERT_EQ(options->monitors.size(), 2U);
  ASSERT_TRUE(options->chardevs[0].socket);
  EXPECT_EQ(options->chardevs[0].socket->address.path, "/a");
  EXPECT_TRUE(options->chardevs[0].socket->server);
  EXPECT_FALSE(options->chardevs[0].socket->wait);
  EXPECT_EQ(options->chardevs[1].word, "stdio");
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(options->chardevs[i].id, "compat_monitor" + std::to_string(i));
    EXPECT_EQ(options->monitors[i].chardev, options->chardevs[i].id);
    EXPECT_TRUE(options->monitors[i].control);
    EXPECT_EQ(options->monitors[i].pretty, i == 1);
  }
}

TEST(OptionsControlTest, AChardevIsWhatItsWordsSay) {
  const struct {
    const char* argument;
    const char* word;     // empty: a socket
    const char* address;  // of the socket
    bool server;
    bool wait;
  } cases[] = {
      {"null,id=a", "null", "", false, false},
      {"backend=pty,id=a", "pty", "", false, false},
      {"stdio,id=a,signal=off", "stdio", "", false, false},
      {"file,id=a,path=/b,,c", "file:/b,c", "", false, false},
      {"socket,id=a,path=/b", "", "unix:/b", false, false},
      {"socket,id=a,path=/b,server=on", "", "unix:/b", true, true},
      {"socket,id=a,path=/b,server=on,wait=off", "", "unix:/b", true, false},
      {"socket,id=a,port=1,server=on", "", "tcp:127.0.0.1:1", true, true},
      {"socket,id=a,host=::1,port=1", "", "tcp:[::1]:1", false, false},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.argument);
    const auto options = Parse({"-chardev", c.argument});
    ASSERT_TRUE(options) << options.error().ToString();
    const ChardevRequest& chardev = options->chardevs.at(0);
    EXPECT_EQ(chardev.id, "a");
    EXPECT_EQ(chardev.word, c.word);
    ASSERT_EQ(chardev.socket.has_value(), *c.word == '\0');
    if (!chardev.socket) continue;
    EXPECT_EQ(chardev.socket->address.Describe(), c.address);
    EXPECT_EQ(chardev.socket->server, c.server);
    EXPECT_EQ(chardev.socket->wait, c.wait);
  }
}

TEST(OptionsControlTest, AClientMayComeBack) {
  using std::chrono::milliseconds;
  const struct {
    const char* argument;
    std::optional<milliseconds> reconnect;
  } cases[] = {{"socket,id=a,path=/b", {}},
               {"socket,id=a,path=/b,reconnect=0", {}},
               {"socket,id=a,path=/b,reconnect=2", milliseconds(2000)},
               {"socket,id=a,path=/b,reconnect-ms=20", milliseconds(20)}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.argument);
    const auto options = Parse({"-chardev", c.argument});
    ASSERT_TRUE(options) << options.error().ToString();
    EXPECT_EQ(options->chardevs.at(0).socket->reconnect, c.reconnect);
  }
}

TEST(OptionsControlTest, AMonitorOfOnesOwnReplacesTheDefaultOne) {
  EXPECT_EQ(Parse({"-nographic"})->serial, std::vector<std::string>{"mon:stdio"});
  for (const std::vector<const char*>& more :
       {std::vector<const char*>{"-nographic", "-qmp", "unix:/a"},
        std::vector<const char*>{"-nographic", "-chardev", "null,id=a", "-mon", "a"}}) {
    EXPECT_EQ(Parse(more)->serial, std::vector<std::string>{"stdio"});
  }
}

TEST(OptionsControlTest, OthersMayUseAChardevToo) {
  const auto options = Parse({"-chardev", "null,id=a", "-serial", "chardev:a", "-chardev",
                              "null,id=b", "-monitor", "chardev:b"});
  ASSERT_TRUE(options) << options.error().ToString();
  EXPECT_TRUE(options->chardevs[0].taken);
  EXPECT_TRUE(options->chardevs[1].taken);
}

TEST(OptionsControlTest, RefusalsNameOptionAndValue) {
  const struct {
    std::vector<const char*> arguments;
    const char* message;
  } cases[] = {
      {{"-chardev", "null"}, "-chardev null: chardev: no id specified"},
      {{"-chardev", "null,id=1a"}, "-chardev null,id=1a: Parameter 'id' expects an identifier"},
      {{"-chardev", "foo,id=a"}, "-chardev foo,id=a: 'foo' is not a valid char driver name"},
      {{"-chardev", "udp,id=a"},
       "-chardev udp,id=a: QEMU has the chardev backend 'udp', Holdfast does not have it"},
      {{"-chardev", "null,id=a", "-chardev", "pty,id=a"},
       "-chardev pty,id=a: Duplicate ID 'a' for chardev"},
      {{"-chardev", "null,id=a,bogus=1"}, "-chardev null,id=a,bogus=1: Invalid parameter 'bogus'"},
      {{"-chardev", "null,id=a,logfile=x"},
       "-chardev null,id=a,logfile=x: QEMU has the parameter 'logfile', Holdfast does not have it "
       "yet"},
      {{"-chardev", "file,id=a"}, "-chardev file,id=a: chardev: file: no filename given"},
      {{"-chardev", "socket,id=a"},
       "-chardev socket,id=a: None or one of 'path', 'fd' or 'host' option required."},
      {{"-chardev", "socket,id=a,path=/b,port=1"},
       "-chardev socket,id=a,path=/b,port=1: None or one of 'path', 'fd' or 'host' option "
       "required."},
      {{"-chardev", "socket,id=a,host=b"},
       "-chardev socket,id=a,host=b: chardev: socket: no port given"},
      {{"-chardev", "socket,id=a,path=/b,wait=on"},
       "-chardev socket,id=a,path=/b,wait=on: 'wait' option is incompatible with socket in client "
       "connect mode"},
      {{"-chardev", "socket,id=a,path=/b,server=on,reconnect=1"},
       "-chardev socket,id=a,path=/b,server=on,reconnect=1: 'reconnect' option is incompatible "
       "with "
       "socket in server listen mode"},
      {{"-chardev", "socket,id=a,path=/b,server=maybe"},
       "-chardev socket,id=a,path=/b,server=maybe: Parameter 'server' expects 'on' or 'off'"},
      {{"-mon", "mode=control"}, "-mon mode=control: Parameter 'chardev' is missing"},
      {{"-mon", "chardev=nope"}, "-mon chardev=nope: chardev \"nope\" not found"},
      {{"-mon", "a,mode=foo"}, "-mon a,mode=foo: Parameter 'mode' does not accept value 'foo'"},
      {{"-mon", "a,pretty=x"}, "-mon a,pretty=x: Parameter 'pretty' expects 'on' or 'off'"},
      {{"-mon", "a,bogus=1"}, "-mon a,bogus=1: Invalid parameter 'bogus'"},
      {{"-mon", "a,pretty=on"}, "-mon a,pretty=on: 'pretty' is not compatible with HMP monitors"},
      {{"-chardev", "null,id=a", "-mon", "a", "-mon", "a"}, "-mon a: Device 'a' is in use"},
      {{"-chardev", "null,id=a", "-serial", "chardev:a", "-mon", "a"},
       "-serial chardev:a: Device 'a' is in use"},
      {{"-qmp", "chardev:zz"}, "-qmp chardev:zz: chardev \"zz\" not found"},
      {{"-qmp", "tcp:host"}, "-qmp tcp:host: character device 'tcp:host': no HOST:PORT"},
      {{"-qmp", "stdio", "-serial", "stdio"}, "cannot use stdio by multiple character devices"},
      {{"-chardev", "stdio,id=a", "-qmp", "chardev:a", "-daemonize", "-display", "none"},
       "cannot use stdio with -daemonize"},
  };
  for (const auto& c : cases) {
    const auto options = Parse(c.arguments);
    ASSERT_FALSE(options) << c.message;
    EXPECT_EQ(options.error().message(), c.message);
    EXPECT_FALSE(options.error().hint().empty()) << c.message;
  }
}

}  // namespace
}  // namespace holdfast::apps
