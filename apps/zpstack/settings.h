// The settings as the tool sees them: command-line options become ZPS_ variables, and everything is checked by base/config.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "base/config.h"

namespace tool {

// An environment under construction.
class Environment {
 public:
  static Environment of_this_process();

  void set(const std::string& name, const std::string& value) { values_[name] = value; }
  void unset(const std::string& name) { values_.erase(name); }
  // Empty if not set.
  [[nodiscard]] std::string get(const std::string& name) const;
  // A null-terminated envp; valid as long as `storage` is.
  [[nodiscard]] std::vector<char*> as_envp(std::vector<std::string>& storage) const;

 private:
  std::map<std::string, std::string> values_;
};

// What is in force, with the origin of each key.
struct Settings {
  base::Config config;
  std::array<base::Origin, base::kConfigKeys> origins;

  [[nodiscard]] std::string value(int key) const;
};

// The file the settings are read from: /etc/zpstack.toml, or what ZPS_TEST_CONFIG_FILE names.
std::string config_file(const Environment& environment);

// Throws Failure with one line when a value, a key or the file is not valid.
Settings load_settings(const Environment& environment);

}  // namespace tool
