// What each kind of wire wants after its colon.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/wire_kinds.h"

#include <cstring>

namespace base {
namespace {

struct WireKind {
  const char* name;
  enum { nothing, path, word, word_or_nothing } argument = nothing;
};
constexpr WireKind kWireKinds[] = {{"veth"}, {"tap"}, {"memif", WireKind::path}, {"vhost", WireKind::path}, {"virtio-user", WireKind::path},
                                   {"host", WireKind::word_or_nothing}, {"af_xdp", WireKind::word_or_nothing},
                                   {"af_packet", WireKind::word}, {"device", WireKind::word}};

}  // namespace

bool names_wire(const char* text) noexcept {
  const size_t kind_length = strcspn(text, ":");
  const bool has_argument = text[kind_length] == ':';
  const char* argument = has_argument ? text + kind_length + 1 : "";
  for (const WireKind& kind : kWireKinds) {
    if (strlen(kind.name) != kind_length || strncmp(kind.name, text, kind_length) != 0) continue;
    if (kind.argument == WireKind::nothing && has_argument) return false;
    const bool may_lack = kind.argument == WireKind::word_or_nothing && !has_argument;
    if (kind.argument != WireKind::nothing && !may_lack && strcspn(argument, ",") == 0) return false;
    if (kind.argument == WireKind::path && argument[0] != '/') return false;
    return true;
  }
  return false;
}

}  // namespace base
