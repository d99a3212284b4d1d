// The search for byte pairs and the control-flow decoding of the functions that hold one.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/sites/scanner.h"

#include <emmintrin.h>

#include <cstring>

#include "zpoline/sites/decoder.h"
#include "zpoline/sites/functions.h"
#include "zpoline/sites/unknown_pairs.h"

namespace zpoline {
namespace {

class BitSet {
 public:
  void clear(size_t bits) noexcept { memset(words_, 0, (bits + 63) / 64 * 8); }
  void set(size_t i) noexcept { words_[i / 64] |= uint64_t{1} << (i % 64); }
  [[nodiscard]] bool test(size_t i) const noexcept { return words_[i / 64] >> (i % 64) & 1; }

 private:
  uint64_t words_[kMaxFunctionBytes / 64 + 1];
};

// One function at a time; static because 600 KB are too much for a stack, and never touched beyond the function's size.
struct Workspace {
  BitSet starts;    // an instruction begins here
  BitSet interior;  // a byte of an instruction other than its first
  BitSet targets;   // a direct jump or branch lands here
  uint32_t queue[kMaxFunctionBytes / 16];
  size_t queued;
};
Workspace work;

constexpr size_t kMaxSitesPerFunction = 256;
constexpr uint8_t kLoadOpcode = 0xb8;
constexpr uint8_t kCompare[kCompareBytes] = {0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff};
constexpr size_t kCompareOpcodeBytes = 2;

// The object's sites so far: they are handed on when its symbols have been held against them.
struct Pending {
  Site sites[2048];
  size_t count;
};
Pending pending;

struct Found {
  uint32_t at;  // offset of the instruction
  uint8_t length;
  int32_t number;
  uint32_t load_at;
  bool has_load;
};

class FunctionAnalysis {
 public:
  FunctionAnalysis(const Function& function, ScanCounts& counts) noexcept
      : begin_(function.begin),
        size_(static_cast<size_t>(function.end - function.begin)),
        counts_(counts),
        computed_(function.has_landing_pads),
        has_landing_pads_(function.has_landing_pads),
        small_stack_(function.small_stack) {
    work.starts.clear(size_);
    work.interior.clear(size_);
    work.targets.clear(size_);
    work.queued = 0;
  }

  void follow_from(const uint8_t* entry) noexcept {
    push(static_cast<int64_t>(entry - begin_));
    while (work.queued > 0) follow(work.queue[--work.queued]);
  }

  // The second chance of rule 4: decode straight on from where the flow stopped.
  void fill_gaps() noexcept {
    if (!computed_) return;
    for (size_t at = 0; at < size_; at++) {
      if (!work.starts.test(at) && !work.interior.test(at)) {
        push(static_cast<int64_t>(at));
        while (work.queued > 0) follow(work.queue[--work.queued]);
      }
    }
  }

  // True if the flow came upon the pair at `p`. (Walking all symbols for further entries is worth it only where it did not.)
  [[nodiscard]] bool has_proven(const uint8_t* p) const noexcept {
    for (size_t i = 0; i < found_count_; i++) {
      if (begin_ + found_[i].at + found_[i].length - 2 == p) return true;
    }
    return false;
  }

  void report() noexcept {
    sort_found();
    const bool red_zone = below_rsp_ || (below_rbp_ && frames_rbp_ && !lowers_rsp_);
    for (size_t i = 0; i < found_count_; i++) {
      const Found& found = found_[i];
      if (overlaps(found)) continue;
      Site site{};
      site.address = const_cast<uint8_t*>(begin_) + found.at + found.length - 2;
      const bool sole_path = found.has_load && !work.targets.test(found.at);
      site.number = sole_path ? found.number : kUnknownNumber;
      site.load = sole_path ? begin_ + found.load_at : nullptr;
      site.below_rsp = red_zone;
      site.callable = found.length == 2 || (found.length == 3 && (begin_[found.at] == 0x48 || begin_[found.at] == 0xf3));
      site.jump = sole_path ? jump_at(found) : Jump::none;
      if (site.jump == Jump::none && small_stack_ && is_unnumbered(found)) site.jump = Jump::unnumbered;
      site.small_stack = small_stack_;
      counts_.sites++;
      if (pending.count < sizeof pending.sites / sizeof pending.sites[0]) pending.sites[pending.count++] = site;
      else counts_.unknown++;
    }
  }

 private:
  void push(int64_t offset) noexcept {
    if (offset < 0 || static_cast<size_t>(offset) >= size_ || work.starts.test(static_cast<size_t>(offset))) return;
    if (work.queued < sizeof work.queue / sizeof work.queue[0]) work.queue[work.queued++] = static_cast<uint32_t>(offset);
  }

  void land(int64_t offset) noexcept {
    if (offset < 0 || static_cast<size_t>(offset) >= size_) return;
    work.targets.set(static_cast<size_t>(offset));
    push(offset);
  }

  void follow(size_t at) noexcept {
    bool loaded = false;
    size_t load_at = 0;
    uint32_t number = 0;
    while (at < size_ && !work.starts.test(at)) {
      const Instruction instruction = decode(begin_ + at, size_ - at);
      if (instruction.kind == Kind::invalid) return;
      counts_.instructions++;
      work.starts.set(at);
      for (size_t i = 1; i < instruction.length; i++) work.interior.set(at + i);
      note(instruction);
      if (instruction.kind == Kind::syscall || instruction.kind == Kind::sysenter) add(at, instruction, loaded, load_at, number);
      loaded = instruction.kind == Kind::load_eax;
      load_at = at;
      number = instruction.immediate;
      if (!continues(at, instruction)) return;
      at += instruction.length;
    }
  }

  // Queues where the instruction may go; true if it may also fall through.
  [[nodiscard]] bool continues(size_t at, const Instruction& instruction) noexcept {
    const int64_t target = static_cast<int64_t>(at) + instruction.target;
    switch (instruction.kind) {
      case Kind::jump: land(target); return false;
      case Kind::branch: land(target); return true;
      case Kind::call:
        if (instruction.target != instruction.length) land(target);
        return true;
      case Kind::indirect_jump: computed_ = jumps_anywhere_ = true; return false;
      case Kind::tail_jump:
      case Kind::end: return false;
      default: return true;
    }
  }

  void note(const Instruction& instruction) noexcept {
    below_rsp_ |= instruction.below_rsp;
    below_rbp_ |= instruction.below_rbp;
    frames_rbp_ |= instruction.frames_rbp;
    lowers_rsp_ |= instruction.lowers_rsp;
  }

  void add(size_t at, const Instruction& instruction, bool loaded, size_t load_at, uint32_t number) noexcept {
    if (found_count_ == kMaxSitesPerFunction) {
      counts_.unknown++;
      return;
    }
    found_[found_count_++] = {static_cast<uint32_t>(at), instruction.length, static_cast<int32_t>(number), static_cast<uint32_t>(load_at),
                              loaded};
  }

  [[nodiscard]] bool overlaps(const Found& found) const noexcept {
    if (work.interior.test(found.at)) return true;
    for (size_t i = 1; i < found.length; i++) {
      if (work.starts.test(found.at + i)) return true;
    }
    return false;
  }

  // True if no path of this function leads into [from, to) but to the two places named.
  [[nodiscard]] bool is_sealed(size_t from, size_t to, size_t first, size_t second) const noexcept {
    for (size_t at = from; at < to; at++) {
      if (work.targets.test(at) || (work.starts.test(at) && at != first && at != second)) return false;
    }
    return true;
  }

  // Which jump may stand at the load of `found`, as far as this function tells.
  [[nodiscard]] Jump jump_at(const Found& found) const noexcept {
    const size_t load = found.load_at;
    const size_t after = found.at + 2;
    if (found.length != 2 || jumps_anywhere_ || work.interior.test(load)) return Jump::none;
    if (load + kLoadBytes == found.at && begin_[load] == kLoadOpcode) {
      return is_sealed(load + 1, after, found.at, found.at) ? Jump::load : Jump::none;
    }
    const bool compared = load + 2 == found.at && after + kCompareBytes <= size_ && memcmp(begin_ + after, kCompare, kCompareBytes) == 0;
    if (!compared || has_landing_pads_ || !work.starts.test(after)) return Jump::none;
    return is_sealed(load + 1, after + kCompareBytes, found.at, after) ? Jump::compare : Jump::none;
  }

  [[nodiscard]] bool is_unnumbered(const Found& found) const noexcept {
    const size_t after = found.at + 2;
    const bool compared = after + kCompareBytes <= size_ && memcmp(begin_ + after, kCompare, kCompareOpcodeBytes) == 0;
    if (found.length != 2 || !compared || jumps_anywhere_ || has_landing_pads_ || !work.starts.test(after)) return false;
    return is_sealed(found.at + 1, after + kCompareBytes, found.at, after);
  }

  void sort_found() noexcept {
    for (size_t i = 1; i < found_count_; i++) {
      const Found moving = found_[i];
      size_t j = i;
      for (; j > 0 && found_[j - 1].at > moving.at; j--) found_[j] = found_[j - 1];
      found_[j] = moving;
    }
  }

  const uint8_t* begin_;
  size_t size_;
  ScanCounts& counts_;
  bool computed_;
  bool has_landing_pads_;
  bool small_stack_;
  bool jumps_anywhere_ = false;  // has an indirect jump, perhaps through a table
  bool below_rsp_ = false;
  bool below_rbp_ = false;
  bool frames_rbp_ = false;
  bool lowers_rsp_ = false;
  size_t found_count_ = 0;
  Found found_[kMaxSitesPerFunction];
};

// The next 0f 05 or 0f 34 in [p, end), or end.
const uint8_t* next_pair(const uint8_t* p, const uint8_t* end) noexcept {
  const __m128i first = _mm_set1_epi8(0x0f);
  const __m128i second = _mm_set1_epi8(0x05);
  const __m128i other = _mm_set1_epi8(0x34);
  for (; end - p >= 17; p += 16) {
    const __m128i here = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m128i next = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 1));
    const __m128i hit = _mm_and_si128(_mm_cmpeq_epi8(here, first), _mm_or_si128(_mm_cmpeq_epi8(next, second), _mm_cmpeq_epi8(next, other)));
    const int mask = _mm_movemask_epi8(hit);
    if (mask != 0) return p + __builtin_ctz(static_cast<unsigned>(mask));
  }
  for (; end - p >= 2; p++) {
    if (p[0] == 0x0f && (p[1] == 0x05 || p[1] == 0x34)) return p;
  }
  return end;
}

// The bytes that would not be themselves any more: from where the jump would stand to one past the last of them.
const uint8_t* begin_of(const Site& site) noexcept { return site.load == nullptr ? site.address : jump_begin(site); }
const uint8_t* end_of(const Site& site) noexcept { return site.address + 2 + (takes_compare(site) ? kCompareBytes : 0); }

// True if the four bytes at `p` are the distance of a far branch into [low, high), or look like it.
bool is_branch_into(const uint8_t* begin, const uint8_t* p, const uint8_t* low, const uint8_t* high) noexcept {
  int32_t distance;
  memcpy(&distance, p, sizeof distance);
  const uint8_t* landing = p + 4 + distance;
  if (landing < low || landing >= high || p - begin < 1) return false;
  return p[-1] == 0xe9 || p[-1] == 0xe8 || (p - begin >= 2 && p[-2] == 0x0f && (p[-1] & 0xf0) == 0x80);
}

// The sites from `first` on that lose system call and compare to a jump, and the place from the first to the end of the last of them. (Not
// Go's: its linker places functions one by one, and who names another names its begin.)
struct Compared {
  size_t first;
  const uint8_t* low = nullptr;
  const uint8_t* high = nullptr;

  explicit Compared(size_t first_site) noexcept : first(first_site) {
    for (size_t i = first; i < pending.count; i++) {
      if (pending.sites[i].jump != Jump::compare) continue;
      if (low == nullptr) low = begin_of(pending.sites[i]) + 1;
      high = end_of(pending.sites[i]);
    }
  }

  void refuse_entered_from(const uint8_t* begin, const uint8_t* p) const noexcept {
    if (!is_branch_into(begin, p, low, high)) return;
    for (size_t i = first; i < pending.count; i++) {
      Site& site = pending.sites[i];
      if (site.jump == Jump::compare && is_branch_into(begin, p, begin_of(site) + 1, end_of(site))) site.jump = Jump::none;
    }
  }

  // Looks at every byte of [begin, end) that could begin a far branch into one of them: 4 distances at a time.
  void refuse_far_entered(const uint8_t* begin, const uint8_t* end) const noexcept {
    const __m128i sign = _mm_set1_epi32(INT32_MIN);
    const __m128i limit = _mm_xor_si128(_mm_set1_epi32(static_cast<int>(high - low)), sign);
    const uint8_t* p = begin;
    for (; end - p >= 19; p += 16) {
      __m128i hit = _mm_setzero_si128();
      for (int phase = 0; phase < 4; phase++) {
        const auto behind = static_cast<int>(p + phase + 4 - low);
        const __m128i from = _mm_add_epi32(_mm_set1_epi32(behind), _mm_set_epi32(12, 8, 4, 0));
        const __m128i landing = _mm_add_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + phase)), from);
        hit = _mm_or_si128(hit, _mm_cmpgt_epi32(limit, _mm_xor_si128(landing, sign)));
      }
      if (_mm_movemask_epi8(hit) == 0) continue;
      for (int i = 0; i < 16; i++) refuse_entered_from(begin, p + i);
    }
    for (; end - p >= 4; p++) refuse_entered_from(begin, p);
  }
};

// True if some bytes near [low, high) but outside `function`, which the flow has not seen, could be a short branch into it.
bool may_hold_short_branch(const uint8_t* begin, const uint8_t* end, const Function& function, const uint8_t* low,
                           const uint8_t* high) noexcept {
  for (const uint8_t* p = low - begin > 130 ? low - 130 : begin; p + 1 < end && p < high + 130; p++) {
    const bool branch = (*p & 0xf0) == 0x70 || *p == 0xeb || (*p >= 0xe0 && *p <= 0xe3);
    const uint8_t* landing = p + 2 + static_cast<int8_t>(p[1]);
    if (branch && landing >= low && landing < high && !function.contains(p)) return true;
  }
  return false;
}

void scan_segment(const uint8_t* begin, const uint8_t* end, const FunctionTable& table, UnknownPairs& unknown,
                  ScanCounts& counts) noexcept {
  const uint8_t* analysed_to = begin;
  const size_t first_site = pending.count;
  for (const uint8_t* p = next_pair(begin, end); p < end; p = next_pair(p + 1, end)) {
    counts.pairs++;
    if (p < analysed_to) continue;
    const Function function = table.find(p);
    const bool known = function.begin != function.end && function.begin >= begin && function.end <= end;
    if (!known || static_cast<size_t>(function.end - function.begin) > kMaxFunctionBytes) {
      if (unknown.may_call(begin, p, end)) counts.unknown++;
      continue;
    }
    FunctionAnalysis analysis(function, counts);
    counts.functions++;
    analysis.follow_from(function.begin);
    if (!analysis.has_proven(p)) table.for_each_entry(function, [&analysis](const uint8_t* entry) { analysis.follow_from(entry); });
    analysis.fill_gaps();
    analysis.report();
    analysed_to = function.end;
  }
  for (size_t i = first_site; i < pending.count; i++) {
    Site& site = pending.sites[i];
    if (site.jump == Jump::compare && may_hold_short_branch(begin, end, table.find(site.address), begin_of(site) + 1, end_of(site)))
      site.jump = Jump::none;
  }
  const Compared compared(first_site);
  if (compared.low != nullptr) compared.refuse_far_entered(begin, end);
}

// A symbol is a way in: a site with one behind its first byte keeps its load.
void refuse_labelled(const FunctionTable& table) noexcept {
  table.for_each_label([](const uint8_t* label) {
    size_t low = 0;
    size_t high = pending.count;
    while (low < high) {
      const size_t middle = low + (high - low) / 2;
      if (end_of(pending.sites[middle]) <= label) low = middle + 1;
      else high = middle;
    }
    if (low < pending.count && begin_of(pending.sites[low]) < label) pending.sites[low].jump = Jump::none;
  });
}

}  // namespace

ScanCounts scan_object(const dl_phdr_info& object, SiteVisitor visit, void* context) noexcept {
  ScanCounts counts;
  const FunctionTable table(object);
  UnknownPairs unknown(object);
  pending.count = 0;
  for (int i = 0; i < object.dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = object.dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X) || !(segment.p_flags & PF_R)) continue;
    const uint8_t* begin = reinterpret_cast<const uint8_t*>(object.dlpi_addr + segment.p_vaddr);
    scan_segment(begin, begin + segment.p_filesz, table, unknown, counts);
  }
  if (pending.count > 0) refuse_labelled(table);
  counts.go_text = table.go_text();
  for (size_t i = 0; i < pending.count; i++) visit(context, pending.sites[i]);
  return counts;
}

}  // namespace zpoline
