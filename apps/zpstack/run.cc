// `zpstack run`: sets the environment, checks what can be checked before the program is there, and execs it.
// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/core.h>
#include <unistd.h>

#include <cstring>

#include "apps/zpstack/commands.h"
#include "apps/zpstack/error.h"
#include "apps/zpstack/paths.h"
#include "apps/zpstack/program.h"

namespace tool {
namespace {

// The preloaded library decides by these before anybody has read the file, so what the file says of them goes into the environment.
constexpr const char* kEarlyKeys[] = {"hook", "hook_library", "fallback", "log", "inherit", "jit", "network"};

void export_early_keys(const Settings& settings, Environment& environment) {
  for (int i = 0; i < base::kConfigKeys; i++) {
    if (settings.origins[static_cast<size_t>(i)] != base::Origin::file) continue;
    for (const char* name : kEarlyKeys) {
      if (strcmp(name, base::config_key(i).name) == 0) environment.set(base::config_key(i).variable, settings.value(i));
    }
  }
}

void prepend_preload(const std::string& library, Environment& environment) {
  // ld.so splits the list at colons and spaces, and knows no way to quote them.
  if (library.find_first_of(": ") != std::string::npos) {
    throw Failure(fmt::format("{} cannot be preloaded: its path holds a colon or a space", library));
  }
  const std::string before = environment.get("LD_PRELOAD");
  const bool there = (":" + before + ":").find(":" + library + ":") != std::string::npos;
  if (!there) environment.set("LD_PRELOAD", before.empty() ? library : library + ":" + before);
}

std::string static_host(const Libraries& libraries) {
  const std::string path = libraries.preload.substr(0, libraries.preload.rfind('/') + 1) + "zpstack-static";
  if (access(path.c_str(), X_OK) != 0) throw Failure(fmt::format("cannot run a static program: {}: {}", path, strerror(errno)));
  return path;
}

[[noreturn]] void become(const std::string& path, const std::vector<std::string>& command, const Environment& environment) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  std::vector<std::string> storage;
  execve(path.c_str(), arguments.data(), environment.as_envp(storage).data());
  throw Failure(fmt::format("cannot run {}: {}", path, strerror(errno)));
}

}  // namespace

void run_program(const std::vector<std::string>& command, Environment environment) {
  environment.unset("ZPS_PROGRAM");  // of somebody who runs this tool without the library
  const Settings settings = load_settings(environment);
  export_early_keys(settings, environment);
  const bool may_run_plain = settings.config.fallback == base::Fallback::kernel;

  const Program program = find_program(command[0], environment.get("PATH"));
  if (!program.obstacle.empty()) {
    if (!may_run_plain) throw Failure(fmt::format("{} {}", program.path, program.obstacle));
    if (settings.config.log >= base::LogLevel::warn) {
      fmt::print(stderr, "zpstack: {} {}: it runs on the kernel's network\n", program.path, program.obstacle);
    }
    become(program.path, command, environment);
  }

  const std::string hook_library = settings.config.hook_library;
  if (!hook_library.empty() && access(hook_library.c_str(), R_OK) != 0) {
    throw Failure(fmt::format("hook library {}: {}", hook_library, strerror(errno)));
  }
  const Libraries libraries = find_libraries();
  if (libraries.preload.empty()) throw Failure(fmt::format("libzpstack.so is not in {}", libraries.searched));
  prepend_preload(libraries.preload, environment);
  // For it, and for what it executes (zpoline/life/static_program.h).
  environment.set("ZPS_PROGRAM", program.is_static ? program.path : "");
  become(program.is_static ? static_host(libraries) : program.path, command, environment);
}

}  // namespace tool
