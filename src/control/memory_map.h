// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <holdfast/error.h>

#include "control/qmp_json.h"

namespace holdfast {
class AddressSpace;
}

namespace holdfast::control {

inline constexpr std::uint64_t kMostMapCells = 65536;
/// Pages looked at for one map; 2 GiB are looked at page by page.
inline constexpr std::uint64_t kMostMapPages = std::uint64_t{1} << 19;

/// How large a cell is so that guest RAM has at most `cells` of them, but for what begins and ends
/// of regions add: a power of two, a page at least.
std::uint64_t MapCellSize(std::uint64_t ram_size, std::uint64_t cells);

/// A map of guest RAM for `holdfast-query-memory-map`: for each cell, a range of guest physical
/// addresses, how much of it is allocated and on which nodes of the host. If there are more than
/// `most_pages` pages, runs of pages from each cell stand for all of it. Asking allocates nothing.
/// @param cells  from 1 to kMostMapCells
/// @return the failed system call
Result<Json> MapMemory(const AddressSpace& memory, std::uint64_t cells,
                       std::uint64_t most_pages = kMostMapPages);

}  // namespace holdfast::control
