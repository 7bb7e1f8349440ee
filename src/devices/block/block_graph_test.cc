// SPDX-License-Identifier: Apache-2.0
#include "devices/block/block_graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "devices/block/storage_daemon.h"
#include "devices/block/test_support.h"

namespace holdfast::devices::block {
namespace {

using ::testing::HasSubstr;

class BlockGraphTest : public ::testing::Test {
 protected:
  Result<BlockDevice*> Add(std::string_view text) {
    HF_TRY(const auto values, object::ParseKeyValues(text));
    HF_TRY(const NodeOptions options, ParseNodeOptions(values));
    return graph_.AddNode(options);
  }
  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  BlockGraph graph_{*loop_};
};

TEST_F(BlockGraphTest, ShowsAPartOfANode) {
  const TestImage image(8192, 'a');
  ASSERT_TRUE(Add("driver=file,filename=" + image.path() + ",node-name=f"));
  const auto raw = Add("driver=raw,file=f,node-name=r,offset=1024,size=2048");
  ASSERT_TRUE(raw) << raw.error().ToString();
  EXPECT_EQ((*raw)->size(), 2048U);
  const auto submitter = *(*raw)->MakeSubmitter(*loop_);
  TestBuffer buffer(512, 'b');
  const std::array<iovec, 1> pieces = {buffer.piece(0, 512)};
  EXPECT_EQ(DoIo(*loop_, *submitter, Operation::kWrite, 512, pieces), 0);
  EXPECT_EQ(image.Contents().find('b'), 1536U);
}

TEST_F(BlockGraphTest, ImagesAreToldWhatTheNodesBelowThemAre) {
  const TestImage image(8192, 'a');
  const auto add = [&](const std::string& text) {
    return graph_.AddBlockdev(*ParseNodeOptions(*object::ParseKeyValues(text, "driver")));
  };
  ASSERT_TRUE(add("file,node-name=f,filename=" + image.path()));
  ASSERT_TRUE(add("raw,node-name=r,file=f,offset=512"));
  ASSERT_TRUE(add("qcow2,node-name=base,file=r,read-only=on"));
  ASSERT_TRUE(add("qcow2,node-name=top,file.driver=file,file.filename=/top,backing=base"));
  const StorageDaemon* const base = graph_.FindImage("base");
  ASSERT_NE(base, nullptr);
  EXPECT_EQ(base->filename(), image.path());
  EXPECT_EQ(base->format(), "qcow2");
  EXPECT_TRUE(base->readonly());
  EXPECT_EQ(base->config().node.own_child->offset, 512U);
  const StorageDaemon* const top = graph_.FindImage("top");
  ASSERT_NE(top, nullptr);
  ASSERT_NE(top->config().node.own_backing, nullptr);
  EXPECT_EQ(FileOf(*top->config().node.own_backing).filename, image.path());

  const struct {
    const char* text;
    const char* error;
  } kCases[] = {
      {"qcow2,node-name=top,file=f", "Duplicate nodes with node-name='top'"},
      {"null-co,node-name=top", "Duplicate nodes with node-name='top'"},
      {"qcow2,node-name=f,file=f", "Duplicate nodes with node-name='f'"},
      {"qcow2,node-name=x,file=nothing", "Cannot find device='' nor node-name='nothing'"},
      {"raw,node-name=x,file.driver=qcow2,file.file=f", "cannot be below another node"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.text);
    const Status made = add(c.text);
    ASSERT_FALSE(made);
    EXPECT_THAT(made.error().message(), HasSubstr(c.error));
  }
  for (const char* const used : {"f", "r", "base"}) {
    const Status removed = graph_.RemoveNode(used);
    ASSERT_FALSE(removed) << used;
    EXPECT_EQ(removed.error().message(), std::string("Node ") + used + " is in use");
  }
  for (const char* const name : {"top", "base", "r", "f"}) {
    EXPECT_TRUE(graph_.RemoveNode(name)) << name;
  }
}

TEST_F(BlockGraphTest, AnImageInUseStays) {
  NodeOptions options;
  options.driver = NodeDriver::kImage;
  options.format = "qcow2";
  options.node_name = "q";
  options.own_child = std::make_shared<NodeOptions>();
  options.own_child->filename = "/x";
  ASSERT_TRUE(graph_.AddBlockdev(options));
  {
    const auto endpoint = graph_.FindImage("q")->endpoint();
    EXPECT_FALSE(graph_.RemoveNode("q"));
  }
  EXPECT_TRUE(graph_.RemoveNode("q"));
  ASSERT_TRUE(graph_.AddImage("drive", options, false));
  const Status owned = graph_.RemoveNode("drive");
  ASSERT_FALSE(owned);
  EXPECT_EQ(owned.error().message(), "Node drive is not owned by the monitor");
  EXPECT_FALSE(graph_.AddDrive("drive", nullptr));
}

TEST_F(BlockGraphTest, RefusesWhatCannotBe) {
  ASSERT_TRUE(Add("driver=null-co,node-name=n,size=4096"));
  const struct {
    const char* text;
    const char* error;
  } kCases[] = {
      {"driver=null-co,node-name=n", "Duplicate nodes with node-name='n'"},
      {"driver=raw,file=none", "Cannot find device='' nor node-name='none'"},
      {"driver=raw,file=n,offset=8192", "Offset (8192) cannot be greater than size"},
      {"driver=raw,file=n,size=8192", "has to be smaller or equal to the actual size"},
      {"driver=raw,file.driver=file,file.filename=/does/not/exist", "No such file"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.text);
    const auto made = Add(c.text);
    ASSERT_FALSE(made);
    EXPECT_THAT(made.error().message(), HasSubstr(c.error));
    EXPECT_EQ(graph_.nodes().size(), 1U) << "nothing is left of it";
  }
}

TEST_F(BlockGraphTest, RemovesNodesThatNobodyUses) {
  ASSERT_TRUE(Add("driver=raw,node-name=top,file.driver=null-co,file.node-name=bottom"));
  EXPECT_THAT(graph_.RemoveNode("bottom").error().message(), HasSubstr("is in use"));
  EXPECT_EQ(graph_.RemoveNode("x").error().message(), "Failed to find node with node-name='x'");
  Drive* const drive = graph_.Find("top");
  ASSERT_NE(drive, nullptr);
  EXPECT_EQ(graph_.Find("top"), drive) << "one drive for each node";
  ASSERT_TRUE(drive->Attach({.name = "disk0"}));
  EXPECT_FALSE(drive->Attach({.name = "disk1"}));
  EXPECT_THAT(graph_.RemoveNode("top").error().message(), HasSubstr("is in use"));
  EXPECT_EQ(graph_.Lookup("disk0"), drive);
  drive->Detach();
  EXPECT_TRUE(graph_.RemoveNode("top"));
  EXPECT_TRUE(graph_.nodes().empty()) << "its own child goes with it";
  EXPECT_TRUE(graph_.drives().empty());
}

TEST_F(BlockGraphTest, FlushesAllDrivesAndSaysWhichOneCannot) {
  // A medium whose flushes fail.
  class Failing final : public BlockDevice {
   public:
    const std::string& id() const noexcept override { return id_; }
    std::uint64_t size() const noexcept override { return 512; }
    std::uint32_t block_size() const noexcept override { return 512; }
    bool readonly() const noexcept override { return false; }
    bool supports(Operation) const noexcept override { return true; }
    NodeInfo info() const override { return {}; }
    Status PrepareFor(std::uint32_t, bool) override { return {}; }
    void Release() noexcept override {}
    Status Resize(std::uint64_t) override { return {}; }
    Result<std::unique_ptr<Submitter>> MakeSubmitter(EventLoop&) override {
      class Flushes final : public Submitter {
       public:
        explicit Flushes(Failing& device) : device_(device) {}
        void Submit(Request request) override {
          EXPECT_EQ(request.operation, Operation::kFlush);
          request_ = std::move(request);
        }
        void Kick() override {}
        void Drain() override {
          if (auto request = std::exchange(request_, std::nullopt)) request->done(device_.error);
        }

       private:
        Failing& device_;
        std::optional<Request> request_;
      };
      ++flushes;
      return Result<std::unique_ptr<Submitter>>(std::make_unique<Flushes>(*this));
    }
    int error = 0;
    int flushes = 0;

   private:
    const std::string id_ = "failing";
  };
  const TestImage image(8192, 'a');
  Failing first;
  Failing second;
  ASSERT_TRUE(Add("driver=file,filename=" + image.path() + ",node-name=f"));
  ASSERT_TRUE(graph_.AddDrive("empty", nullptr));
  ASSERT_TRUE(graph_.AddDrive("file", graph_.FindNode("f")));
  ASSERT_TRUE(graph_.AddDrive("one", &first));
  ASSERT_TRUE(graph_.AddDrive("two", &second));
  EXPECT_TRUE(graph_.FlushAll());
  first.error = EIO;
  const Status flushed = graph_.FlushAll();
  ASSERT_FALSE(flushed);
  EXPECT_THAT(flushed.error().ToString(), HasSubstr("drive 'one'"));
  EXPECT_EQ(flushed.error().os_errno(), EIO);
  EXPECT_EQ(second.flushes, 2) << "the others are flushed all the same";
}

TEST_F(BlockGraphTest, TellsOfErrorsAndStopsTheMachineForThem) {
  std::vector<nlohmann::json> events;
  unsigned stops = 0;
  graph_.set_hooks({.emit =
                        [&](std::string_view name, const nlohmann::json& data) {
                          EXPECT_EQ(name, "BLOCK_IO_ERROR");
                          events.push_back(data);
                        },
                    .stop_for_io_error = [&] { ++stops; }});
  const auto node = Add("driver=null-co,node-name=n");
  ASSERT_TRUE(node);
  Drive* const drive = *graph_.AddDrive("drive0", *node);
  unsigned again = 0;
  ASSERT_TRUE(drive->Attach({.name = "/machine/disk", .run_again = [&] { ++again; }}));
  EXPECT_EQ(drive->Failed(Operation::kWrite, ENOSPC), OnError::kStop);
  ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(1000)));
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(stops, 1U);
  EXPECT_EQ(events[0]["device"], "drive0");
  EXPECT_EQ(events[0]["node-name"], "n");
  EXPECT_EQ(events[0]["operation"], "write");
  EXPECT_EQ(events[0]["action"], "stop");
  EXPECT_EQ(events[0]["nospace"], true);
  EXPECT_EQ(events[0]["reason"], "No space left on device");
  graph_.MachineRuns();
  EXPECT_EQ(again, 1U);
}

// What the two monitors of a migration do with one image.
TEST_F(BlockGraphTest, LocksMoveFromOneGraphToAnother) {
  const TestImage image(8192, 'a');
  const std::string node = "driver=file,filename=" + image.path() + ",node-name=f";
  const auto plug = [](BlockGraph& graph, const std::string& text) -> Result<Drive*> {
    HF_TRY(const auto values, object::ParseKeyValues(text));
    HF_TRY(const NodeOptions options, ParseNodeOptions(values));
    HF_TRY_STATUS(graph.AddNode(options));
    Drive* const drive = graph.Find("f");
    HF_TRY_STATUS(drive->Attach({.name = "disk"}));
    return drive;
  };
  const auto source = plug(graph_, node);
  ASSERT_TRUE(source) << source.error().ToString();
  BlockGraph other(*loop_);
  ASSERT_TRUE(other.Inactivate());
  const auto destination = plug(other, node);
  ASSERT_TRUE(destination) << "opened without a lock: " << destination.error().ToString();

  const Status early = other.Activate();
  ASSERT_FALSE(early) << "the source has it";
  EXPECT_EQ(early.error().message(), "Failed to get \"write\" lock");
  EXPECT_EQ(early.error().hint(), "Is another process using the image [" + image.path() + "]?");
  EXPECT_FALSE(other.active());

  const auto from = *(*source)->MakeSubmitter(*loop_);
  const auto to = *(*destination)->MakeSubmitter(*loop_);
  TestBuffer buffer(512, 'b');
  const std::array<iovec, 1> pieces = {buffer.piece(0, 512)};
  EXPECT_EQ(DoIo(*loop_, *to, Operation::kWrite, 0, pieces), EPERM) << "not yet";
  EXPECT_EQ(DoIo(*loop_, *from, Operation::kWrite, 0, pieces), 0);
  ASSERT_TRUE(graph_.Inactivate());
  EXPECT_EQ(DoIo(*loop_, *from, Operation::kWrite, 512, pieces), EPERM) << "no more";
  std::filesystem::resize_file(image.path(), 16384);
  const Status moved = other.Activate();
  ASSERT_TRUE(moved) << moved.error().ToString();
  EXPECT_EQ((*destination)->size(), 16384U);
  EXPECT_EQ(DoIo(*loop_, *to, Operation::kWrite, 1024, pieces), 0);
  EXPECT_FALSE(graph_.Activate()) << "never both";
  ASSERT_TRUE(other.Inactivate());
  EXPECT_TRUE(graph_.Activate()) << "and back";
  EXPECT_EQ(DoIo(*loop_, *from, Operation::kRead, 0, pieces), 0);
  const std::string contents = image.Contents();
  EXPECT_EQ(contents[0], 'b');
  EXPECT_EQ(contents[512], 'a');
  EXPECT_EQ(contents[1024], 'b');
}

TEST_F(BlockGraphTest, OneImageThatIsTakenLeavesAllUnlocked) {
  const TestImage free(4096);
  const TestImage taken(4096);
  const auto add = [](BlockGraph& graph, const std::string& name, const std::string& path) {
    const auto values =
        object::ParseKeyValues("driver=file,node-name=" + name + ",filename=" + path);
    ASSERT_TRUE(graph.AddNode(*ParseNodeOptions(*values)));
    ASSERT_TRUE(graph.Find(name)->Attach({.name = name}));
  };
  BlockGraph holder(*loop_);
  add(holder, "b", taken.path());
  ASSERT_TRUE(graph_.Inactivate());
  add(graph_, "a", free.path());
  add(graph_, "b", taken.path());
  EXPECT_FALSE(graph_.Activate());
  add(holder, "a", free.path());  // its lock was given back
}

TEST_F(BlockGraphTest, AnImageOfTheStorageDaemonStays) {
  const auto values = object::ParseKeyValues(
      "driver=qcow2,node-name=q,file.driver=file,"
      "file.filename=/top");
  ASSERT_TRUE(graph_.AddBlockdev(*ParseNodeOptions(*values)));
  const Status refused = graph_.Inactivate();
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("'q' is served by qemu-storage-daemon"));
  EXPECT_TRUE(graph_.active());
}

}  // namespace
}  // namespace holdfast::devices::block
