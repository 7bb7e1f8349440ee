// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "devices/fd_chardev.h"

namespace holdfast::devices {

/// `file:PATH`: output goes to a file, which is made or emptied first; there is no input.
class FileChardev final : public FdChardev {
 public:
  static Result<std::unique_ptr<Chardev>> Create(EventLoop& loop, std::string path);
  FileChardev(const FileChardev&) = delete;
  FileChardev& operator=(const FileChardev&) = delete;
  ~FileChardev() override;

  std::string Describe() const override;

 private:
  FileChardev(EventLoop& loop, std::string path, UniqueFd fd);
  void OnOutputError(int os_errno) override;

  const std::string path_;
  UniqueFd fd_;
};

}  // namespace holdfast::devices
