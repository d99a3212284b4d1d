// The one place that knows TOML: a missing file costs one failing open(), and only a file that is there meets the parser.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/config_file.h"

#include <fcntl.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "base/syscall.h"

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#define TOML_ENABLE_FORMATTERS 0
#define TOML_ENABLE_WINDOWS_COMPAT 0
#include <toml++/toml.h>

namespace base {
namespace {

constexpr size_t kMaxFileBytes = 64 * 1024;

// The file's text, at most kMaxFileBytes and one more; negative errno.
long read_whole(const char* file, std::string& out) {
  const long fd = kernel_call(SYS_openat, AT_FDCWD, as_arg(file), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fd;
  out.resize(kMaxFileBytes + 1);
  size_t length = 0;
  long count = 0;
  while (length < out.size()) {
    count = kernel_call(SYS_read, fd, as_arg(out.data() + length), static_cast<long>(out.size() - length));
    if (count == -EINTR) continue;
    if (count <= 0) break;
    length += static_cast<size_t>(count);
  }
  (void)kernel_call(SYS_close, fd);
  out.resize(length);
  return count < 0 ? count : static_cast<long>(length);
}

// A value as text; false for what is none (a table, a list in a list, a date, a fraction).
bool text_of(const toml::node& node, std::string& out) {
  if (const auto* text = node.as_string()) out = text->get();
  else if (const auto* number = node.as_integer()) out = std::to_string(number->get());
  else if (const auto* flag = node.as_boolean()) out = flag->get() ? "true" : "false";
  else return false;
  return out.find('\0') == std::string::npos;
}

using Set = Error (*)(void*, const FileSetting&) noexcept;

Error set_one(const char* file, void* context, Set set, const char* name, const toml::node& node, int place) {
  const auto line = static_cast<unsigned>(node.source().begin.line);
  std::string value;
  if (text_of(node, value)) return set(context, {name, value.c_str(), node.is_string(), place, line});
  return make_error("%s: line %u: %s is neither text, whole number nor true/false", file, line, name);
}

Error set_all(const char* file, void* context, Set set, const char* name, const toml::node& node) {
  const auto* list = node.as_array();
  if (list == nullptr) return set_one(file, context, set, name, node, -1);
  int place = 0;
  for (const toml::node& each : *list) {
    const Error error = set_one(file, context, set, name, each, place++);
    if (error.text[0] != '\0') return error;
  }
  return {};
}

}  // namespace

Error read_config_file(const char* file, void* context, Set set) noexcept {
  std::string text;
  const long length = read_whole(file, text);
  if (length == -ENOENT || length == -ENOTDIR) return {};
  if (length < 0) return make_error("%s cannot be read (errno %ld)", file, -length);
  if (static_cast<size_t>(length) > kMaxFileBytes) return make_error("%s is larger than %zu bytes", file, kMaxFileBytes);

  const toml::parse_result parsed = toml::parse(std::string_view(text));
  if (!parsed) {
    const std::string why(parsed.error().description());
    return make_error("%s: line %u: %s", file, static_cast<unsigned>(parsed.error().source().begin.line), why.c_str());
  }
  for (const auto& [key, node] : parsed.table()) {
    const std::string name(key.str());
    const Error error = set_all(file, context, set, name.c_str(), node);
    if (error.text[0] != '\0') return error;
  }
  return {};
}

}  // namespace base
