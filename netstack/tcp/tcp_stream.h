// A TCP connection as the shim sees it: receive queue, send queue and Linux's rules around an lwIP PCB.
// SPDX-License-Identifier: BSD-3-Clause
//
// The stream outlives its PCB in both directions. A PCB that dies (reset, timeout, both sides closed) leaves the stream with its unread
// data and its error; a stream that its user releases stays until TCP has sent and got acknowledged what it holds, then frees
// itself. Once nothing in it is needed any more the PCB goes through its last states alone.
//
// Receiving: what lwIP delivers are pbufs that point into frames of the wire (zero copy); they are queued and read() copies out.
// The window opens again as the program reads, and an update is sent when it is worth one.
//
// Sending: lwIP walks its unsent queue on every tcp_write, so that queue is kept short. A small write goes straight into lwIP (one
// copy); what is beyond the window waits in chunks of the arena and is fed to lwIP by reference as acknowledgements come.
// Nothing leaves before Stack::flush() or poll(), unless a few full segments are ready.
//
// Invariants: 1 chunk bytes are freed only when acknowledged, so lwIP's references stay valid; 2 pcb_ is null as soon as lwIP
// frees the PCB (its destroy callback says so); 3 after release() no observer is called.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lwip/priv/tcp_priv.h"
#include "netstack/stack.h"
#include "netstack/tcp/four_tuple.h"

namespace netstack {

class Tcp;
class LwipListener;
struct SavedSyn;

// Queued in the stack's list of streams that have something to send.
struct DirtyLink : base::ListNode {};
// Queued in the stack's list of streams whose peer waits for an acknowledgement.
struct DelayedAck : base::ListNode {
  uint64_t due_ns;  // 0: before the next poll
  uint32_t reader;  // whose answer is awaited (delayed_acks.h)
};
// Queued in a listener's accept queue.
struct AcceptLink : base::ListNode {};

class LwipStream final : public TcpStream, public DirtyLink, public DelayedAck, public AcceptLink {
 public:
  explicit LwipStream(Tcp& tcp) noexcept;

  // TcpStream.
  [[nodiscard]] uint32_t ready() const noexcept override;
  [[nodiscard]] long connect(const SocketAddress& peer) noexcept override;
  // TIME-WAIT is over for who holds the socket: what Linux keeps of it there is no socket (tcp_time_wait()).
  [[nodiscard]] bool connected() const noexcept override {
    return phase_ == Phase::connected && (pcb_ == nullptr || pcb_->state != TIME_WAIT);
  }
  [[nodiscard]] bool connecting() const noexcept override { return phase_ == Phase::connecting; }
  [[nodiscard]] long read(const iovec* parts, int count, bool peek) noexcept override;
  [[nodiscard]] long peek_at(const iovec* parts, int count, size_t offset) noexcept override;
  [[nodiscard]] long write(const iovec* parts, int count, bool more) noexcept override;
  [[nodiscard]] long write_from(ByteSource& source, size_t wanted, bool more) noexcept override;
  [[nodiscard]] long read_urgent(char* byte, bool peek) noexcept override;
  [[nodiscard]] bool at_mark() const noexcept override { return urgent_ != Urgent::none && urgent_at_ == read_total_; }
  [[nodiscard]] size_t readable_to_mark() const noexcept override;
  [[nodiscard]] long write_urgent(const iovec* parts, int count, bool more) noexcept override;
  [[nodiscard]] size_t readable_bytes() const noexcept override { return received_bytes_; }
  [[nodiscard]] size_t writable_bytes() const noexcept override { return write_room(); }
  [[nodiscard]] size_t unsent_bytes() const noexcept override { return static_cast<size_t>(written_ - acknowledged_); }
  [[nodiscard]] bool would_lose() const noexcept override;
  [[nodiscard]] uint64_t received_ns() const noexcept override { return received_ns_; }
  [[nodiscard]] long shutdown(int how) noexcept override;
  void disconnect() noexcept override;
  void set_error(int error) noexcept override { error_ = error; }
  [[nodiscard]] int take_error() noexcept override;
  [[nodiscard]] long set_option(TcpOption option, int value) noexcept override;
  [[nodiscard]] long get_option(TcpOption option, int* value) const noexcept override;
  void info(tcp_info* out) const noexcept override;
  [[nodiscard]] TcpInfoTail info_tail() const noexcept override;
  [[nodiscard]] size_t take_saved_syn(uint8_t* to, size_t room) noexcept override;
  [[nodiscard]] SocketAddress local() const noexcept override { return local_; }
  [[nodiscard]] SocketAddress peer() const noexcept override { return peer_; }
  void release() noexcept override;

  // For the stack. lwIP's callback at the end of the handshake.
  static err_t on_connected(void* self, tcp_pcb* pcb, err_t error) noexcept;
  static err_t on_opened_mutually(void* self, tcp_pcb* pcb, err_t error) noexcept;
  // What the user of a connection's port says now, or said last.
  [[nodiscard]] static PortSharing sharing_of(const tcp_pcb& pcb) noexcept;
  // Takes over a connection that a listener completed.
  void adopt(tcp_pcb* pcb, const LwipListener& listener) noexcept;
  [[nodiscard]] long bind(const SocketAddress& local) noexcept;
  // Hands queued bytes to lwIP and lets it send. False if the wire has no frame now and a retry is needed.
  bool output() noexcept;
  // lwIP freed the PCB.
  void pcb_gone() noexcept;
  // Before each tick while armed: true if the stream itself needs ticks. May abort the connection.
  bool before_tick(uint64_t now_ns) noexcept;
  // Resets the connection towards the peer and marks the stream with `error` (0: none).
  void abort(int error) noexcept;
  // Sends a segment of keepalive, once for each number of the peer: whoever does not know the connection answers with a reset.
  // False if the wire does not take it now.
  [[nodiscard]] bool ask_peer(uint32_t peer) noexcept;
  // After a member died inside the lock: nothing of lwIP or the arena exists any more.
  void forget_everything() noexcept;
  // Gives back what the stream holds, before its slot is freed.
  void dispose() noexcept;
  [[nodiscard]] bool released() const noexcept { return released_; }
  // Whether a user has the stream (made or accepted it); what only waits in an accept queue is not held.
  [[nodiscard]] bool held() const noexcept { return held_; }
  void hold(bool held = true) noexcept { held_ = held; }
  void announce(uint32_t events) noexcept;
  void announce_data() noexcept;
  // A segment with data is about to come in: whether its acknowledgement should wait for nothing (Linux: tcp_in_quickack_mode()).
  [[nodiscard]] bool acknowledges_quickly() noexcept;
  void acknowledge_when_read() noexcept { push_came_ = true; }
  // So many bytes more are enough for the program to be told.
  [[nodiscard]] bool would_tell(uint32_t bytes) const noexcept { return received_bytes_ + bytes >= low_water_; }
  // It has something to send in the next flush.
  void mark_dirty() noexcept;
  [[nodiscard]] tcp_pcb* pcb() noexcept { return pcb_; }
  // How many bytes more the memory allows to be received and not read.
  [[nodiscard]] uint32_t receive_room() const noexcept;
  // Takes the window back that memory cannot keep, until something is read.
  void shut_window() noexcept;
  // A segment comes that acknowledges nothing new, but may open the window.
  void window_may_open() noexcept {
    if (feeding_ != nullptr) mark_dirty();
  }
  // A router says that it takes packets of so many bytes at most towards the peer (tcp_reports.h).
  void path_takes(uint32_t mtu) noexcept;
  // A segment comes that says where the urgent data ends (Linux: tcp_check_urg()).
  void note_urgent(const tcp_hdr& header) noexcept;
  // While its PCB is in urgent mode: the sequence number behind the urgent byte (Linux: snd_up).
  [[nodiscard]] uint32_t urgent_end() const noexcept { return urgent_end_; }
  // Whether the first unsent segment may leave, which it then does.
  [[nodiscard]] bool nagle_permits() noexcept;
  // Sends what may leave, then the reset that release() owes, and the stream is gone. False: the wire takes no more now.
  bool finish_reset() noexcept;
  // Tells the writer that waits, if it can write.
  void look_for_room() noexcept;
  // A segment with `bytes` of data has come.
  void count_in(const tcp_pcb& pcb, uint32_t bytes) noexcept {
    const uint32_t segments = bytes <= kUsualSegment ? 1 : segments_of(pcb, bytes);
    figures_.segments_in += segments;
    if (bytes > 0) figures_.data_segments_in += segments;
  }
  // One leaves; `again`: it has been sent before.
  void count_out(const tcp_pcb& pcb, uint32_t bytes, bool again) noexcept {
    const uint32_t segments = bytes <= kUsualSegment ? 1 : segments_of(pcb, bytes);
    figures_.segments_out += segments;
    if (bytes > 0) figures_.data_segments_out += segments;
    if (again) [[unlikely]] count_retransmission(segments, bytes);
  }
  // One with data has come that begins behind a gap.
  void count_out_of_order(uint32_t bytes) noexcept;
  // Nothing was acknowledged in time: what is outstanding is about to be sent again.
  void count_timeout(uint64_t now_ns) noexcept;
  void begin_figures(uint64_t handshake_ns) noexcept;
  bool deferred = false;     // it had something to send while nothing is (FrameOutput)
  uint32_t recovery_point = 0;  // what had been sent when fast recovery began (RFC 6582)

 private:
  enum class Phase : uint8_t { fresh, connecting, connected, closed };
  // Linux: urg_data. An urgent byte is announced; it has come; a program has read it, and the stream has not passed it yet.
  enum class Urgent : uint8_t { none, announced, valid, read };

  struct Chunk {
    Chunk* next;
    uint64_t end_offset;  // stream offset of the last byte that was fed from this chunk
    uint32_t capacity, filled, fed;
    [[nodiscard]] uint8_t* bytes() noexcept { return reinterpret_cast<uint8_t*>(this + 1); }
  };

  // Options kept here so that they can be set before there is a PCB.
  struct Options {
    int send_buffer = kDefaultSendBuffer;
    int receive_bound = kDefaultReceiveBuffer;  // the buffer, or TCP_WINDOW_CLAMP
    uint8_t tos = 0, ttl = 64, shut = 0;
    bool nodelay = false, cork = false, keepalive = false, quickack = true, oob_inline = false;
    bool paced = false, keeps_little_unsent = false;
    // From here on what is asked at the ends of a connection, at ticks, or of few.
    int user_timeout_ms = 0;
    int receive_buffer = kDefaultReceiveBuffer, receive_low_water = 1, window_clamp = 0;
    int linger_s = -1;
    uint32_t notsent_low_water = 0, pacing_rate = UINT32_MAX, port_range = 0;
    uint16_t keepidle_s = 7200, keepintvl_s = 75, keepcnt = 9;
    uint16_t max_segment = 0, defer_accept_s = 0;
    int16_t fin_wait_s = kDefaultFinWaitSeconds;
    uint8_t syn_count = 0, min_ttl = 0, save_syn = 0;
    uint8_t traffic_class = 0, hop_limit = 64, min_hop_limit = 0, path_mtu_discovery6 = 1, path_mtu_discovery = 1;
    PortSharing sharing{};
  };
  friend class LwipListener;

  // What tcp_info tells and nothing else knows: what is written for each segment or round trip.
  struct Figures {
    uint32_t segments_in = 0, data_segments_in = 0, segments_out = 0, data_segments_out = 0;
    uint64_t busy_ns = 0;      // with something to be acknowledged, up to progress_ns_
    uint32_t rate_from = 0;    // of acknowledged_, when the round trip that is measured began
    uint32_t least_rtt_us = UINT32_MAX;
  };
  // The same, of what happens seldom: behind all that a segment touches.
  struct RareFigures {
    uint64_t begun_ns = 0;    // when the connection stood
    uint64_t lost_bytes = 0;  // thrown away with the connection
    uint64_t retransmitted_bytes = 0;
    uint64_t pace_ns = 0;         // up to when what was sent is paid for, at the pacing rate
    uint64_t window_limited_ns = 0;  // of Figures::busy_ns, while the peer's window lets out no more
    uint64_t timeout_since_ns = 0;   // of the recovery under way; 0: none is
    uint32_t timeout_ms = 0;         // and that of those before
    uint16_t timeouts = 0, timeout_recoveries = 0;
    uint32_t out_of_order = 0;    // segments
    uint32_t retransmitted = 0;   // segments
    uint32_t rate_bytes = 0, rate_us = 0;  // delivery rate
    uint16_t last_mss = 0;        // of a connection that is over
    uint32_t largest_window = 0;  // of the peer's, likewise
    uint32_t sequence_gap = 0;    // what disconnect() has left between snd_nxt and write_seq
    SavedSyn* saved_syn = nullptr;
  };

  static constexpr uint32_t kUsualSegment = 1460;
  static constexpr int16_t kDefaultFinWaitSeconds = 60;  // Linux: tcp_fin_timeout
  static constexpr int kDefaultSendBuffer = 1 << 20;
  static constexpr int kDefaultReceiveBuffer = TCP_WND;

  static err_t on_receive(void* self, tcp_pcb* pcb, pbuf* p, err_t error) noexcept;
  static err_t on_sent(void* self, tcp_pcb* pcb, u16_t bytes) noexcept;
  static void on_error(void* self, err_t error) noexcept;

  void attach(tcp_pcb* pcb) noexcept;
  void detach() noexcept;
  void apply_options() noexcept;
  void bound_receiving() noexcept;
  void limit_segments() noexcept;
  [[nodiscard]] bool holds_longer_than(uint32_t payload) const noexcept;
  void split_unsent(uint32_t payload) noexcept;
  void split_at_window() noexcept;
  [[nodiscard]] uint32_t paced(uint32_t bytes) noexcept;
  void pay_pace(size_t bytes) noexcept;
  [[nodiscard]] int segment_size() const noexcept;
  void note_last_sizes() noexcept;
  void fail(int error) noexcept;
  void give_up(int error) noexcept;
  void queue_received(pbuf* p) noexcept;
  void drop_received() noexcept;
  [[nodiscard]] long read_beside_mark(const iovec* parts, int count, bool peek) noexcept;
  [[nodiscard]] long peek_behind_mark(const iovec* parts, int count) noexcept;
  void drop_first_byte() noexcept;
  void find_urgent_byte() noexcept;
  void open_window() noexcept;
  void set_low_water() noexcept;
  void give_up_connecting() noexcept;
  void queue_fin() noexcept;
  [[nodiscard]] bool resets_at_release() const noexcept;
  // Linux's, which is ahead of lwIP's while the FIN waits behind data.
  [[nodiscard]] tcp_state state() const noexcept;
  [[nodiscard]] bool keep_alive() noexcept;
  [[nodiscard]] uint32_t receive_window() const noexcept;
  [[nodiscard]] uint32_t receive_limit() const noexcept;
  [[nodiscard]] size_t write_room() const noexcept;
  [[nodiscard]] size_t buffer_room() const noexcept;
  [[nodiscard]] bool has_space() const noexcept;
  [[nodiscard]] size_t waiting_bytes() const noexcept;
  [[nodiscard]] bool writable() const noexcept;
  // The writer waits from here on.
  void note_no_space() const noexcept;
  [[nodiscard]] bool holding() const noexcept { return (options_.cork || more_) && !fin_queued_; }
  void push_all() noexcept;
  void acknowledge_read() noexcept;
  [[nodiscard]] long look_at(const iovec* parts, int count, size_t offset) const noexcept;
  struct Write {
    bool was_empty;
    uint64_t now_ns;
  };
  [[nodiscard]] long refuse_write() noexcept;
  [[nodiscard]] Write begin_write(bool more) noexcept;
  [[nodiscard]] long end_write(const Write& write, size_t done, size_t wanted) noexcept;
  [[nodiscard]] size_t append(const uint8_t* data, size_t bytes) noexcept;
  [[nodiscard]] Chunk* make_chunk(size_t bytes) noexcept;
  void add_chunk(Chunk* chunk) noexcept;
  [[nodiscard]] size_t append_chunks(const uint8_t* data, size_t bytes) noexcept;
  [[nodiscard]] uint32_t waiting_in_lwip() const noexcept { return pcb_->snd_lbb - pcb_->snd_nxt; }
  [[nodiscard]] size_t unheld(size_t unfed) const noexcept;
  [[nodiscard]] bool retransmits() const noexcept;
  [[nodiscard]] uint32_t longest_segment() const noexcept;
  [[nodiscard]] uint32_t feed_budget(size_t wanted) noexcept;
  [[nodiscard]] uint32_t window_budget(size_t wanted) noexcept;
  void shorten_segments() noexcept;
  void feed() noexcept;
  void raise_window() noexcept;
  [[nodiscard]] bool finish_sending() noexcept;
  void free_chunks() noexcept;
  void sample_round_trip() noexcept;
  void add_round_trip(uint32_t sample_us) noexcept;
  [[nodiscard]] uint32_t segments_of(const tcp_pcb& pcb, uint32_t bytes) const noexcept;
  void end_timeouts(uint64_t now_ns) noexcept;
  [[nodiscard]] bool window_is_full() const noexcept;
  void count_retransmission(uint32_t segments, uint32_t bytes) noexcept;
  [[nodiscard]] uint64_t offset_of(uint32_t sequence) const noexcept;
  void put_connection(tcp_info* out, uint64_t now_ns) const noexcept;
  [[nodiscard]] uint16_t choose_port(const IpAddress& own, const SocketAddress& peer) noexcept;
  [[nodiscard]] bool makes_way(const FourTuple& tuple) noexcept;

  Tcp& tcp_;
  tcp_pcb* pcb_ = nullptr;

  // Receive queue: pbufs linked by `next`, each holding its own reference.
  pbuf* received_head_ = nullptr;
  pbuf* received_tail_ = nullptr;
  size_t received_bytes_ = 0;

  // Send queue, in stream offsets: acknowledged_ <= fed_ <= written_.
  uint64_t written_ = 0, fed_ = 0, acknowledged_ = 0;
  Chunk* chunks_ = nullptr;
  Chunk* last_chunk_ = nullptr;
  Chunk* feeding_ = nullptr;
  uint64_t pushed_ = 0;     // what lies before this offset waits neither for Nagle nor for a cork
  uint32_t short_end_ = 0;  // sequence number behind the last segment that was sent short (Linux: snd_sml)
  uint64_t held_since_ns_ = 0;
  uint64_t received_ns_ = 0;  // when data last came
  uint64_t progress_ns_ = 0;  // when data was last acknowledged or first became outstanding
  uint64_t read_total_ = 0;
  uint32_t low_water_ = 1;  // what the program asked for, but no more than half of a window
  uint32_t urgent_end_ = 0;
  uint64_t urgent_at_ = 0;  // offset of the urgent byte, as read_total_ counts
  uint64_t connect_ns_ = 0;  // when the attempt under way (or the failed one) began; 0 once connected

  // Round trips as the program's stack sees them (lwIP's own clock ticks are too coarse for tcp_info).
  uint64_t rtt_sent_ns_ = 0;  // when the last one that was measured began
  uint64_t rtt_offset_ = 0;   // what ends the one under way; 0: none is
  uint32_t rtt_us_ = 0, rtt_variance_us_ = 0;
  Figures figures_;

  int error_ = 0;
  Phase phase_ = Phase::fresh;
  Urgent urgent_ = Urgent::none;
  char urgent_byte_ = 0;
  bool peer_closed_ = false;   // the peer's FIN is in
  bool read_closed_ = false;   // shutdown(SHUT_RD)
  bool write_closed_ = false;  // shutdown(SHUT_WR) or both directions gone
  bool fin_queued_ = false;    // behind what was written
  bool fin_first_ = false;     // before the peer's came
  bool fin_sent_ = false;      // lwIP has it
  bool fin_in_data_ = false;   // in the last segment of data, where lwIP does not count it in snd_lbb
  uint32_t asked_peer_ = 0;  // ask_peer()
  bool released_ = false;
  bool held_ = false;
  bool more_ = false;
  bool resetting_ = false;    // released, and what ends it is a reset
  bool interactive_ = false;  // the program answers what comes: its answers carry the acknowledgements (Linux: pingpong mode)
  uint8_t quick_acks_ = 0;    // so many acknowledgements are not delayed, unless the program answers
  bool push_came_ = false;    // of what is to be acknowledged some was pushed by the peer, or is to be acknowledged when it is read
  bool bound_ = false;  // to a port of its user's
  bool window_raised_ = false;
  bool rate_known_ = false;
  mutable bool no_space_ = false;

  Options options_;
  RareFigures rare_;
  SocketAddress local_{0, 0}, peer_{};

 public:
  // So much at the end is not worth being asked for ahead.
  static constexpr size_t kRareBytes =
      2 * sizeof(SocketAddress) + sizeof(RareFigures) + sizeof(Options) - offsetof(Options, user_timeout_ms);
};

}  // namespace netstack
