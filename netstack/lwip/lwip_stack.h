// The stack: one lwIP on one wire, its endpoints, its clock. Everything it owns lies in the region or the arena.
//
// One copy of the image holds one stack; lwIP's callbacks and the hooks find it through `the_stack`, the only global
// of ours that lies in the image's data (restored to null by recover() and set again at once).
#pragma once

#include <cstdint>

#include "lwip/netif.h"
#include "netstack/tcp/port_table.h"
#include "netstack/lwip/slab.h"
#include "netstack/stack.h"
#include "netstack/lwip/stack_setup.h"
#include "netstack/tcp/tcp_demux.h"
#include "netstack/tcp/tcp_listener.h"
#include "netstack/tcp/tcp_stream.h"

namespace netstack {

class LwipStack final : public Stack {
 public:
  explicit LwipStack(const StackSetup& setup) noexcept;

  // Stack.
  int poll(uint64_t now_ns) noexcept override;
  void flush() noexcept override;
  [[nodiscard]] uint64_t next_timer_ns() const noexcept override;
  [[nodiscard]] uint64_t last_poll_ns() const noexcept override { return now_ns_; }
  [[nodiscard]] TcpStream* make_stream() noexcept override;
  [[nodiscard]] long bind_stream(TcpStream* stream, const SocketAddress& local) noexcept override;
  [[nodiscard]] TcpListener* listen(const SocketAddress& local, int backlog, bool reuse_port, long* error) noexcept override;
  [[nodiscard]] bool owns(uint32_t address_be) const noexcept override { return address_be == setup_.address_be; }
  [[nodiscard]] bool routes(uint32_t address_be) const noexcept override;
  [[nodiscard]] PoolLevels levels() const noexcept override;
  [[nodiscard]] Wire& wire() noexcept override { return *setup_.wire; }
  void recover() noexcept override;

  // Starts lwIP and brings the interface up. Once, and again by recover().
  void start_lwip() noexcept;

  // For streams and listeners.
  [[nodiscard]] const StackSetup& setup() const noexcept { return setup_; }
  [[nodiscard]] uint64_t now_ns() const noexcept { return now_ns_; }
  // The same, but asks the clock if nothing has been polling because nothing was pending.
  [[nodiscard]] uint64_t fresh_now_ns() noexcept;
  [[nodiscard]] base::Heap& arena() noexcept { return *setup_.arena; }
  void add_dirty(LwipStream& stream) noexcept {
    dirty_.push_back(&stream);
    dirty_count_++;
  }
  // After a write. Where sending needs no kernel call the peer gets a batch while the program still works on the next one:
  // a server that answers all its clients before it waits would else take turns with its peer, each idle half of the time.
  // Where it needs one, the last of the answers to what the last poll brought in leaves at once (with one client it is the only one, and its way
  // back into the wait would be part of the round trip), and so does what fills a cache: it is copied twice more.
  void wrote(size_t bytes) noexcept {
    unflushed_bytes_ += bytes;
    if (dirty_count_ < early_flush_ && (!tcp_checksum_offload_ || (dirty_count_ != arrivals_ && unflushed_bytes_ < kEarlyFlushBytes))) return;
    if (dirty_count_ == arrivals_) arrivals_ = 0;  // a program that answers in many small writes has the others sent together
    flush();
  }
  // A stream has got data in this turn.
  void note_arrival() noexcept { arrivals_++; }
  void free_stream(LwipStream& stream) noexcept;
  void free_listener(LwipListener& listener) noexcept;
  [[nodiscard]] LwipStream* take_stream() noexcept;
  [[nodiscard]] bool streams_exhausted() const noexcept;
  // Something of this connection is pending: its timers run from now on. Takes the clock if the timers stood still.
  void arm(tcp_pcb* pcb) noexcept;
  [[nodiscard]] uint32_t random() noexcept;
  [[nodiscard]] LwipListener* find_listener(const SocketAddress& local, uint32_t spread) noexcept;
  [[nodiscard]] bool port_taken_by_listener(const SocketAddress& local, bool reuse_port) noexcept;
  [[nodiscard]] bool neighbour_known(uint32_t address_be) noexcept;
  // The neighbour that packets to this address go to.
  [[nodiscard]] uint32_t hop_to(uint32_t address_be) const noexcept;

  // For the wire's glue and lwIP's hooks.
  void output_starved() noexcept { starved_ = true; }
  // Has the connection of this frame, which is not sent then, send it in this poll's flush. False if it has no stream, or if there will be none.
  [[nodiscard]] bool put_off(const uint8_t* headers) noexcept;
  // Whether what is sent now comes from a connection that would notice if it were not.
  bool puts_off = false;
  // Frees `p`, to which frames refer, after the next flush.
  void keep_until_flushed(pbuf* p) noexcept;
  [[nodiscard]] bool tcp_checksum_offload() const noexcept { return tcp_checksum_offload_; }
  // Whether what is sent now is flushed before anything else happens.
  [[nodiscard]] bool flushing() const noexcept { return flushing_; }
  // lwIP's flags of the checksums to look at in a frame that nobody has checked.
  [[nodiscard]] u16_t checks_of_unchecked() const noexcept { return checks_of_unchecked_; }
  // A connection's data is to be acknowledged, but not at once: the program may answer before the next poll, and the answer says it too.
  void owe_ack(tcp_pcb* pcb) noexcept;
  // Sends at once what is owed to this connection, if anything is.
  void pay_ack(tcp_pcb* pcb) noexcept;
  // IP bytes in a frame that comes, if that may be more than in one that goes; else 0.
  [[nodiscard]] uint32_t gro_max_size() const noexcept { return wire_facts_.gro_max_size; }
  // IP bytes in a TCP segment that is sent, if that may be more than in a frame, else 0; and in a frame.
  [[nodiscard]] uint32_t gso_max_size() const noexcept { return wire_facts_.gso_max_size; }
  [[nodiscard]] uint16_t frame_mtu() const noexcept { return wire_facts_.mtu; }
  // What counts as a segment of what comes: the connection's, or what a frame holds.
  [[nodiscard]] uint32_t counted_segment(const tcp_pcb& pcb) const noexcept {
    constexpr uint32_t kIpAndTcp = 40;
    return pcb.mss + kIpAndTcp < wire_facts_.mtu ? pcb.mss : wire_facts_.mtu - kIpAndTcp;
  }
  // How many bytes the segment has that lwIP is about to process.
  uint32_t segment_bytes = 0;
  // Undoes what the guard changed for the segment that lwIP has now processed, and goes on with a recovery that lwIP ends too early.
  void finish_input() noexcept;
  [[nodiscard]] uint64_t count_assertion() noexcept { return ++assertions_; }
  // Fragments or packets for an unresolved neighbour wait inside lwIP: its one-second timers run until they are gone.
  void keep_house() noexcept;
  void connection_destroyed(tcp_pcb* pcb) noexcept;
  struct Repair {
    tcp_pcb* pcb;
    int dupacks;         // to put back after input, or -1
    bool close_window;   // the window was opened by one byte for this segment
    bool recovering;     // the connection was in fast recovery
    uint32_t lastack;    // what was acknowledged before this segment
  };
  Repair repair{};

  TcpDemux& demux() noexcept;
  PortTable& ports() noexcept;

 private:
  friend struct StackRegion;
  static constexpr uint64_t kTickNs = uint64_t{TCP_TMR_INTERVAL} * 1'000'000;
  static constexpr uint64_t kSlowTickNs = 2 * kTickNs;
  static constexpr uint64_t kNever = UINT64_MAX;
  static constexpr int kEarlyFlush = 24;  // measured with redis over memif, 50 connections: 600 k/s without, 900 k/s with it
  static constexpr size_t kEarlyFlushBytes = 8192;
  static constexpr int kMaxWaiting = 16384;
  static constexpr int kListenerBuckets = 256;

  void set_clock(uint64_t now_ns) noexcept;
  void file_listener(LwipListener& listener) noexcept;
  void run_timers() noexcept;
  void run_tick() noexcept;
  void run_second() noexcept;
  void expire_waiting() noexcept;
  void wake_parked() noexcept;
  void retry_output() noexcept;
  void ask_peers() noexcept;
  void pay_acks() noexcept;
  // Notes, while the arena still holds what it held, where each connection stood.
  void note_resets() noexcept;
  // Tells the peers of these connections, who may have nothing to send and would wait for ever; as many as the wire takes.
  void pay_resets() noexcept;
  [[nodiscard]] bool needs_tick(tcp_pcb* pcb) noexcept;
  [[nodiscard]] uint64_t keepalive_due_ns(const tcp_pcb* pcb) const noexcept;
  [[nodiscard]] uint64_t ns_of_tick(uint32_t tick) const noexcept;

  StackSetup setup_;
  netif netif_;
  base::List<DirtyLink> dirty_;
  int dirty_count_ = 0;
  int arrivals_ = 0;
  size_t unflushed_bytes_ = 0;
  int early_flush_;
  const bool tcp_checksum_offload_;
  const u16_t checks_of_unchecked_;
  base::List<OwedAck> owed_acks_;
  LwipListener* listeners_[kListenerBuckets] = {};
  int listener_count_ = 0;
  uint64_t random_state_[2];
  const WireFacts& wire_facts_;
  uint32_t peers_asked_;  // wire_facts_.peers, when the connections were last asked whether they still are

  uint64_t now_ns_ = 0;
  uint64_t clock_origin_ns_ = 0;  // when lwIP's slow tick was 1
  uint64_t next_tick_ns_ = kNever;
  uint64_t next_second_ns_ = 0;
  uint64_t next_parked_ns_ = kNever;
  uint64_t housekeeping_until_ns_ = 0;
  uint32_t time_wait_ticks_;
  uint32_t last_slow_tick_ = 0;
  uint64_t assertions_ = 0;
  tcp_pcb* ticking_ = nullptr;  // the connection the tick asks about; null again if that ended it
  uint32_t noted_resets_ = 0, paid_resets_ = 0;  // of StackRegion::resets
  uint32_t asked_resets_ = 0;                    // as far as neighbours were asked for
  uint64_t resets_wait_until_ns_ = 0;
  uint32_t peers_told_;  // wire_facts_.peers, when resets were last begun anew for somebody
  bool owes_resets_ = false;
  bool starved_ = false;
  bool in_poll_ = false;
  bool flushing_ = false;
  pbuf* kept_ = nullptr;  // until flushed, chained
};

// A connection that a member's death inside the lock has ended, as far as its peer must be told of it.
struct OwedReset {
  uint32_t local_be, peer_be;
  uint32_t sequence, acknowledgement;
  uint16_t local_port, peer_port;
};

// An entry of lwIP's neighbour table.
struct Neighbour {
  ip4_addr_t address;
  uint8_t mac[6];
};

// What the region holds. Laid over zero-filled memory; only the stack object is constructed, the rest is valid as zeros.
struct StackRegion {
  static constexpr int kMaxStreams = 65536;
  static constexpr int kMaxListeners = 1024;
  static constexpr uint32_t kMostResets = 2 * kMaxStreams;

  alignas(64) unsigned char stack_storage[sizeof(LwipStack)];
  alignas(64) TcpDemux demux;
  alignas(64) PortTable ports;
  alignas(64) Slab<LwipStream, kMaxStreams> streams;
  alignas(64) Slab<LwipListener, kMaxListeners> listeners;
  OwedReset resets[kMostResets];
  Neighbour neighbours[ARP_TABLE_SIZE];
  int neighbour_count;
};

// The stack of this copy of the image, and where it keeps its endpoints.
extern LwipStack* the_stack;
inline StackRegion& region_of(LwipStack& stack) noexcept { return *static_cast<StackRegion*>(stack.setup().region); }

inline TcpDemux& LwipStack::demux() noexcept { return region_of(*this).demux; }
inline PortTable& LwipStack::ports() noexcept { return region_of(*this).ports; }

}  // namespace netstack
