// Finds a program and reads the few bytes of it that say whether the dynamic linker will load us into it.
// SPDX-License-Identifier: BSD-3-Clause
//
// The dynamic linker honours LD_PRELOAD only in a dynamically linked program that runs with its caller's privileges: not in a
// static one (no PT_INTERP: nobody reads the variable; see zpoline/life/static_program.h), not in one of another architecture or C
// library, and not in one that gains privileges by set-user-id, set-group-id or file capabilities (AT_SECURE: the variable is dropped). A
// script is as reachable as its interpreter. Sources: elf(5), ld.so(8), execve(2).
#include "apps/zpstack/program.h"

#include <elf.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "apps/zpstack/error.h"

namespace tool {
namespace {

constexpr char kStatic[] = "is statically linked, so LD_PRELOAD does not reach it";
constexpr int kMaxInterpreters = 4;  // as many levels of #! as the kernel follows

// 0 if `path` is a file that may be executed, else the errno that exec would give.
int executable_error(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return errno;
  if (!S_ISREG(status.st_mode)) return EACCES;
  return access(path.c_str(), X_OK) == 0 ? 0 : errno;
}

std::string search(const std::string& name, const std::string& search_path) {
  int error = ENOENT;
  if (name.find('/') != std::string::npos) {
    error = executable_error(name);
    if (error == 0) return name;
  } else {
    std::istringstream folders(search_path.empty() ? "/usr/local/bin:/usr/bin:/bin" : search_path);
    for (std::string folder; std::getline(folders, folder, ':');) {
      const std::string candidate = (folder.empty() ? "." : folder) + "/" + name;
      const int one_error = executable_error(candidate);
      if (one_error == 0) return candidate;
      if (one_error == EACCES) error = EACCES;
    }
  }
  throw Failure("cannot run " + name + ": " + strerror(error));
}

bool gains_privileges(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return false;
  if ((status.st_mode & S_ISUID) != 0 && status.st_uid != getuid()) return true;
  if ((status.st_mode & S_ISGID) != 0 && status.st_gid != getgid()) return true;
  return getuid() != 0 && getxattr(path.c_str(), "security.capability", nullptr, 0) > 0;
}

// The dynamic linker that a 64-bit ELF file asks for; empty if it asks for none.
std::string elf_interpreter(std::ifstream& file, const Elf64_Ehdr& header) {
  for (int i = 0; i < header.e_phnum; i++) {
    Elf64_Phdr segment;
    file.seekg(static_cast<std::streamoff>(header.e_phoff + static_cast<uint64_t>(i) * header.e_phentsize));
    if (!file.read(reinterpret_cast<char*>(&segment), sizeof segment)) return "";
    if (segment.p_type != PT_INTERP || segment.p_filesz == 0 || segment.p_filesz > 4096) continue;
    std::string name(segment.p_filesz, '\0');
    file.seekg(static_cast<std::streamoff>(segment.p_offset));
    if (!file.read(name.data(), static_cast<std::streamsize>(name.size()))) return "";
    return name.c_str();
  }
  return "";
}

std::string elf_obstacle(std::ifstream& file) {
  Elf64_Ehdr header;
  file.seekg(0);
  if (!file.read(reinterpret_cast<char*>(&header), sizeof header)) return "is a damaged ELF file";
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64) return "is not a 64-bit x86 program";
  const std::string interpreter = elf_interpreter(file, header);
  if (interpreter.empty()) return kStatic;
  if (interpreter.find("/ld-linux-x86-64") == std::string::npos) return "is not linked against glibc (it asks for " + interpreter + ")";
  return "";
}

// The words of a script's first line after "#!".
std::vector<std::string> interpreter_words(std::ifstream& file) {
  std::string line;
  file.seekg(2);
  std::getline(file, line);
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

// The program that a script really runs in: `env` is looked through. Empty if it cannot be told.
std::string script_interpreter(const std::vector<std::string>& words, const std::string& search_path) {
  if (words.empty()) return "";
  const bool by_env = words[0].ends_with("/env");
  if (!by_env) return words[0];
  for (size_t i = 1; i < words.size(); i++) {
    const bool is_name = words[i][0] != '-' && words[i].find('=') == std::string::npos;
    if (is_name) return search(words[i], search_path);
  }
  return "";
}

std::string obstacle_of(const std::string& path, const std::string& search_path, int depth) {
  if (gains_privileges(path))
    return "gains privileges when it starts (set-user-id, set-group-id or capabilities), so the system ignores LD_PRELOAD";
  std::ifstream file(path, std::ios::binary);
  char magic[4] = {};
  if (!file.read(magic, 2)) return "";  // not readable: only the kernel can tell
  if (magic[0] == '#' && magic[1] == '!' && depth < kMaxInterpreters) {
    const std::string interpreter = script_interpreter(interpreter_words(file), search_path);
    if (interpreter.empty()) return "";
    const std::string obstacle = obstacle_of(interpreter, search_path, depth + 1);
    return obstacle.empty() ? "" : "is a script whose interpreter " + interpreter + " " + obstacle;
  }
  if (!file.read(magic + 2, 2) || memcmp(magic, ELFMAG, SELFMAG) != 0) return "";  // a script without #!, or binfmt_misc
  return elf_obstacle(file);
}

}  // namespace

Program find_program(const std::string& name, const std::string& search_path) {
  Program program;
  program.path = search(name, search_path);
  program.obstacle = obstacle_of(program.path, search_path, 0);
  program.is_static = program.obstacle == kStatic;
  if (program.is_static) program.obstacle.clear();
  return program;
}

}  // namespace tool
