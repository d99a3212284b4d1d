// Lays mbufs into reserved memory on demand and offers them to DPDK's drivers as a mempool.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/frame_pool.h"

#include <sys/mman.h>

#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "base/check.h"
#include "base/log.h"
#include "base/shared_memory.h"
#include "base/syscall.h"
#include "netstack/wire.h"

namespace netstack {
namespace {

// A new mempool asks for operations of this name, DPDK's ring, which is not linked: ours take its place.
constexpr char kOpsName[] = "ring_mp_mc";
constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr size_t kChunkHead = RTE_CACHE_LINE_SIZE;  // mempool's, before each object

size_t round_up(size_t bytes, size_t unit) noexcept { return (bytes + unit - 1) / unit * unit; }

FramePool* pool_of(const rte_mempool* mempool) noexcept { return static_cast<FramePool*>(mempool->pool_data); }

// The mempool is never populated by DPDK, so these two only have to exist.
int ops_alloc(rte_mempool*) noexcept { return 0; }
void ops_free(rte_mempool*) noexcept {}

int ops_enqueue(rte_mempool* mempool, void* const* frames, unsigned count) noexcept {
  FramePool* pool = pool_of(mempool);
  if (!pool->is_deaf()) [[likely]] pool->give(frames, count);
  return 0;
}

int ops_dequeue(rte_mempool* mempool, void** frames, unsigned count) noexcept {
  FramePool* pool = pool_of(mempool);
  if (!pool->take(frames, count)) return -ENOBUFS;
  pool->note_for_driver(frames[count - 1]);
  return 0;
}

unsigned ops_count(const rte_mempool* mempool) noexcept { return pool_of(mempool)->free_count(); }

// A file of huge pages would have to be another one.
void* map_hugepages(size_t bytes) noexcept {
  const long address =
      base::kernel_call(SYS_mmap, 0, static_cast<long>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (address < 0 && address > -4096) return nullptr;
  base::note_shared_part({static_cast<uintptr_t>(address), bytes, 0, -1, true, false});
  return reinterpret_cast<void*>(address);
}

}  // namespace

bool FramePool::register_operations() noexcept {
  static bool done = false;
  if (done) return true;
  rte_mempool_ops ops{};
  memcpy(ops.name, kOpsName, sizeof kOpsName);
  ops.alloc = ops_alloc;
  ops.free = ops_free;
  ops.enqueue = ops_enqueue;
  ops.dequeue = ops_dequeue;
  ops.get_count = ops_count;
  done = rte_mempool_register_ops(&ops) >= 0;
  return done;
}

uint32_t FramePool::room_in_chunk(uint32_t chunk) noexcept {
  return chunk - static_cast<uint32_t>(kChunkHead + sizeof(rte_mbuf) + kFramePrivateBytes);
}

base::Result<FramePool*> FramePool::create(const char* name, uint32_t frames, uint32_t room, bool hugepages, uint32_t chunk) noexcept {
  if (!register_operations()) return base::make_error("cannot register the frame pool with DPDK");
  const uint32_t element = sizeof(rte_mbuf) + kFramePrivateBytes + room;
  const unsigned flags = chunk != 0 ? RTE_MEMPOOL_F_NO_SPREAD : 0;
  rte_mempool* mempool = rte_mempool_create_empty(name, frames, element, 0, sizeof(rte_pktmbuf_pool_private), SOCKET_ID_ANY, flags);
  if (mempool == nullptr) return base::make_error("cannot make a pool of %u frames: DPDK error %d", frames, rte_errno);

  const uint32_t stride = mempool->header_size + mempool->elt_size + mempool->trailer_size;
  CHECK(chunk == 0 || stride == chunk);
  const size_t head_bytes = round_up(sizeof(FramePool) + frames * sizeof(void*), chunk > 4096 ? chunk : 4096);
  const size_t bytes = round_up(head_bytes + size_t{frames} * stride, kHugePageBytes);
  void* memory = hugepages ? map_hugepages(bytes) : nullptr;
  if (memory == nullptr) memory = base::map_shared(bytes);
  if (memory == nullptr) return base::make_error("no memory for %u frames of %u bytes: lower ZPS_FRAMES", frames, stride);

  FramePool* pool = static_cast<FramePool*>(memory);
  pool->mempool_ = mempool;
  pool->memory_ = static_cast<char*>(memory) + head_bytes;
  pool->iova_distance_ = 0;
  pool->deaf_ = false;
  pool->stride_ = stride;
  pool->limit_ = frames;
  pool->carved_ = pool->top_ = 0;
  pool->last_for_driver_ = nullptr;

  mempool->pool_data = pool;
  mempool->flags |= RTE_MEMPOOL_F_POOL_CREATED;
  mempool->populated_size = frames;
  rte_pktmbuf_pool_private sizes{};
  sizes.mbuf_data_room_size = static_cast<uint16_t>(room);
  sizes.mbuf_priv_size = kFramePrivateBytes;
  rte_pktmbuf_pool_init(mempool, &sizes);
  return pool;
}

bool FramePool::carve(unsigned wanted) noexcept {
  if (limit_ - carved_ < wanted - top_) return false;
  while (top_ < wanted) free_[top_++] = lay(carved_++);
  return true;
}

void* FramePool::frame_at(uint32_t index) const noexcept { return memory_ + size_t{index} * stride_ + mempool_->header_size; }

void* FramePool::lay(uint32_t index) noexcept {
  void* const object = frame_at(index);
  auto* header = static_cast<rte_mempool_objhdr*>(object) - 1;
  header->mp = mempool_;
  header->iova = reinterpret_cast<rte_iova_t>(object) + iova_distance_;
  rte_pktmbuf_init(mempool_, nullptr, object, index);
  return object;
}

}  // namespace netstack
