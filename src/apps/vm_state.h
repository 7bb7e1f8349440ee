// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <holdfast/error.h>
#include <nlohmann/json_fwd.hpp>

namespace holdfast::apps {

class QmpClient;

/// What a virtual machine says about itself over QMP. Empty: it does not say.
struct VmState {
  struct Cpu {
    std::uint64_t index = 0;
    std::uint64_t host_thread = 0;
    std::optional<std::uint64_t> socket = {}, core = {}, thread = {}, node = {};
    std::string path = {};                    ///< how query-stats names it
    std::optional<double> seconds = {};       ///< processor time its thread has used
    std::optional<std::uint64_t> exits = {};  ///< from the guest, since the start
  };
  struct Node {
    std::uint64_t id = 0;
    std::string cpus = {};   ///< "0 1"
    std::uint64_t size = 0;  ///< bytes
  };
  using ByNode = std::map<std::uint64_t, std::uint64_t>;
  struct Backend {
    std::string id = {};
    std::string type = {};
    std::uint64_t size = 0;
    std::string policy = {};
    std::vector<std::uint64_t> host_nodes = {};
    std::optional<bool> share = {}, prealloc = {}, mapped = {}, guest_memfd = {}, bound = {};
    std::optional<std::uint64_t> allocated = {};  ///< bytes that are really there
    ByNode nodes = {};                            ///< of the allocated, by host node
  };

  std::string name = {}, uuid = {}, server = {}, run_state = {};
  std::optional<bool> kvm = {};
  std::optional<std::uint64_t> memory = {};         ///< guest RAM, bytes
  std::optional<std::uint64_t> cgroup_memory = {};  ///< what its control group is charged with
  std::vector<Cpu> cpus = {};
  std::vector<Node> nodes = {};
  std::vector<Backend> backends = {};
  std::chrono::steady_clock::time_point taken = {};  ///< when the CPUs were asked

  std::optional<std::uint64_t> Allocated() const;
};

/// Asks for everything. Commands the server does not have are passed over.
/// @return the error of a connection that has broken
Result<VmState> QueryVm(QmpClient& client);

/// Asks again for what changes all the time: run state, processor time and exits.
Status QueryVmActivity(QmpClient& client, VmState& state);
/// Asks again for the backends and what is allocated of them, which takes the longer the more
/// memory there is.
Status QueryVmMemory(QmpClient& client, VmState& state);

/// Reads answers into a state; public for tests. What they lack stays empty.
void ReadCpus(const nlohmann::ordered_json& query_cpus_fast, VmState& state);
void ReadCpuStats(const nlohmann::ordered_json& query_stats, VmState& state);
void ReadBackends(const nlohmann::ordered_json& query_memdev, VmState& state);
/// The text of the human monitor's `info numa`.
void ReadNodes(const std::string& info_numa, VmState& state);

/// The processor time in a line of /proc/TID/stat, in seconds.
std::optional<double> ParseThreadStat(const std::string& line, long ticks_per_second);

/// The state for people, and for scripts.
std::string FormatVmInfo(const VmState& state);
nlohmann::ordered_json VmInfoJson(const VmState& state);
/// "0: 1 GiB, 1: 512 MiB"; "-" if nothing is anywhere.
std::string FormatByNode(const VmState::ByNode& nodes);

}  // namespace holdfast::apps
