// SPDX-License-Identifier: Apache-2.0
#include "machine/acpi/test_tables.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

namespace holdfast::machine::acpi {
namespace {

std::string DisassembleIn(const Block& block, const std::filesystem::path& folder) {
  std::string all;
  for (const auto& [signature, bytes] : block.tables) {
    const std::string file = (folder / (signature + ".dat")).string();
    const std::string log = (folder / (signature + ".log")).string();
    std::ofstream(file, std::ios::binary) << bytes;
    std::string name = "iasl";
    std::string option = "-d";
    std::string path = file;
    char* const argv[] = {name.data(), option.data(), path.data(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_CREAT | O_WRONLY, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t pid = 0;
    const int error = ::posix_spawnp(&pid, "iasl", &actions, nullptr, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) return {};
    int status = 0;
    EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0) << signature;
    for (const std::string& part : {log, (folder / (signature + ".dsl")).string()})
      all +=
          std::string(std::istreambuf_iterator<char>(*std::make_unique<std::ifstream>(part)), {});
  }
  return all;
}

}  // namespace

std::string Disassemble(const Block& block) {
  std::string name = (std::filesystem::temp_directory_path() / "acpi_XXXXXX").string();
  const std::filesystem::path folder = ::mkdtemp(name.data());
  std::string all = DisassembleIn(block, folder);
  std::filesystem::remove_all(folder);
  for (const char* const bad : {"Warning", "rror:", "Error", "Unknown", "Invalid", "ncorrect"})
    EXPECT_EQ(all.find(bad), std::string::npos) << bad;
  return all;
}

}  // namespace holdfast::machine::acpi
