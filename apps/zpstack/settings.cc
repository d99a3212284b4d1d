// Environment handling and the call into base/config.
// SPDX-License-Identifier: BSD-3-Clause
#include "apps/zpstack/settings.h"

#include <unistd.h>

#include "apps/zpstack/error.h"

namespace tool {

Environment Environment::of_this_process() {
  Environment environment;
  for (char** entry = environ; *entry != nullptr; entry++) {
    const std::string text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string::npos) environment.values_.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return environment;
}

std::string Environment::get(const std::string& name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? "" : found->second;
}

std::vector<char*> Environment::as_envp(std::vector<std::string>& storage) const {
  storage.clear();
  for (const auto& [name, value] : values_) storage.push_back(name + "=" + value);
  std::vector<char*> envp;
  for (std::string& entry : storage) envp.push_back(entry.data());
  envp.push_back(nullptr);
  return envp;
}

std::string Settings::value(int key) const {
  char text[base::kMostValueBytes];
  base::print_config_value(config, key, text, sizeof text);
  return text;
}

std::string config_file(const Environment& environment) {
  const std::string other = environment.get("ZPS_TEST_CONFIG_FILE");
  return other.empty() ? base::kConfigFile : other;
}

Settings load_settings(const Environment& environment) {
  Settings settings;
  std::vector<std::string> storage;
  base::Result<base::Config> loaded =
      base::load_config(environment.as_envp(storage).data(), config_file(environment).c_str(), settings.origins.data());
  if (!loaded) throw Failure(loaded.error().text);
  settings.config = *loaded;
  return settings;
}

}  // namespace tool
