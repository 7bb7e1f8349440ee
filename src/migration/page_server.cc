// SPDX-License-Identifier: Apache-2.0
#include "migration/page_server.h"

#include <holdfast/address_space.h>
#include <holdfast/page_bitmap.h>
#include <holdfast/ram_block.h>

#include <system_error>

#include "base/hash.h"
#include "memory/present_pages.h"

namespace holdfast::migration {

Result<std::unique_ptr<PageServer>> PageServer::Start(const AddressSpace& memory, FrameWriter& main,
                                                      FrameWriter* urgent,
                                                      std::function<void(const Error&)> failed) {
  std::unique_ptr<PageServer> server(new PageServer(memory, std::move(failed)));
  PageServer* const raw = server.get();
  try {
    raw->threads_.emplace_back([=, &main] { raw->Serve(main, urgent == nullptr, true); });
    if (urgent != nullptr) raw->threads_.emplace_back([=] { raw->Serve(*urgent, true, false); });
  } catch (const std::system_error& error) {
    return Fail(Error::FromErrno("a thread for the migration", error.code().value()));
  }
  return server;
}

PageServer::~PageServer() {
  {
    const MutexLock lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

Status PageServer::Add(const PageRequest& request) {
  // A destination waits for each of its requests; it has a handful of threads.
  constexpr std::size_t kMostWaiting = 1024;
  const MutexLock lock(mutex_);
  auto& queue = request.urgent ? urgent_ : rest_;
  if (queue.size() >= kMostWaiting)
    return Fail(Errc::kMalformed, "the other side of the migration asks for too much at once");
  queue.push_back(request);
  changed_.notify_all();
  return {};
}

void PageServer::Serve(FrameWriter& writer, bool urgent, bool rest) {
  while (true) {
    PageRequest request;
    {
      const MutexLock lock(mutex_);
      while (!ending_ && !(urgent && !urgent_.empty()) && !(rest && !rest_.empty()))
        changed_.wait(mutex_);
      if (ending_) return;
      auto& queue = urgent && !urgent_.empty() ? urgent_ : rest_;
      request = queue.front();
      queue.pop_front();
    }
    if (const Status answered = Answer(writer, request); !answered)
      return failed_(answered.error());
  }
}

Status PageServer::Answer(FrameWriter& writer, const PageRequest& request) {
  const DirtyPages all(memory_);
  const RamBlock& block = *all.blocks()[request.block].block;
  PageBitmap present(block.size());
  HF_TRY_STATUS(ForEachPresent(block, request.offset, request.count * kPageSize,
                               [&](std::uint64_t offset, std::uint64_t size) {
                                 present.Set(offset / kPageSize, size / kPageSize);
                                 return true;
                               }));
  std::vector<std::uint64_t> words;
  std::vector<Channel::Bytes> parts(2);  // head and words, which come when they are known
  for (std::uint32_t i = 0; i < request.count; ++i) {
    if ((request.wanted[i / 64] >> i % 64 & 1) == 0) continue;
    const std::uint64_t offset = request.offset + i * kPageSize;
    const Channel::Bytes page = block.host_view().subspan(offset, kPageSize);
    if (!present.Test(offset / kPageSize) || AllZero(page)) {
      words.push_back(offset | kZeroPage);
      continue;
    }
    words.push_back(offset);
    parts.push_back(page);
  }
  const auto head =
      EncodePagesHead({.request = request.id,
                       .block = request.block,
                       .count = static_cast<std::uint32_t>(words.size()),
                       .stored = static_cast<std::uint32_t>((parts.size() - 2) * kPageSize)});
  const auto listed = EncodePageWords(words);
  parts[0] = head;
  parts[1] = listed;
  HF_TRY_STATUS(writer.Write(FrameType::kPages, parts));
  pages_ += words.size();
  return {};
}

}  // namespace holdfast::migration
