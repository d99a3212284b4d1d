// The command-line tool: zpstack run, doctor, config.
// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "apps/zpstack/commands.h"
#include "apps/zpstack/error.h"

namespace {

using tool::ConfigFormat;
using tool::Environment;

// One option per key of the configuration table.
void add_settings(CLI::App& command, Environment& environment) {
  for (int i = 0; i < base::kConfigKeys; i++) {
    const base::ConfigKey& key = base::config_key(i);
    std::string option = std::string("--") + key.name;
    std::replace(option.begin(), option.end(), '_', '-');
    command.add_option_function<std::string>(
        option, [&environment, &key](const std::string& value) { environment.set(key.variable, value); },
        std::string(key.help) + " (" + key.type + ")");
  }
}

// The program is what follows the first "--", or the first word that is no option; `from_dashes` is empty or begins with "--".
int run_command(const CLI::App& run, std::vector<std::string> from_dashes, const Environment& environment) {
  std::vector<std::string> words = run.remaining();
  if (words.empty() && !from_dashes.empty()) from_dashes.erase(from_dashes.begin());
  if (!words.empty() && words[0][0] == '-') throw tool::Failure("unknown option " + words[0] + " (see zpstack run --help)");
  words.insert(words.end(), from_dashes.begin(), from_dashes.end());
  if (words.empty()) throw tool::Failure("what is to be run? zpstack run [options] -- program arguments");
  tool::run_program(words, environment);
}

int dispatch(int argc, char** argv) {
  Environment environment = Environment::of_this_process();
  CLI::App app{"zpstack gives an unmodified program a userspace TCP/IP stack.", "zpstack"};
  app.set_version_flag("--version", ZPS_VERSION);
  app.require_subcommand(1);

  CLI::App* run = app.add_subcommand("run", "Run a program on the stack: zpstack run [options] -- program arguments");
  add_settings(*run, environment);
  run->prefix_command();

  bool json = false;
  bool markdown = false;
  CLI::App* doctor = app.add_subcommand("doctor", "Tell what this machine has and lacks, and how to mend it");
  doctor->add_flag("--json", json, "Print JSON");
  CLI::App* config = app.add_subcommand("config", "Print the settings in force and where each comes from");
  CLI::Option* as_json = config->add_flag("--json", json, "Print JSON");
  config->add_flag("--markdown", markdown, "Print the table of settings as a page of the manual")->excludes(as_json);
  std::string explained, program;
  CLI::Option* explain = config->add_option("--explain", explained, "Tell which side serves host:port or host:port/udp, and why");
  config->add_option("--program", program, "The program that is meant: the name of its file")->needs(explain);

  char** const dashes = std::find_if(argv + 1, argv + argc, [](const char* word) { return std::string(word) == "--"; });
  const std::vector<std::string> from_dashes(dashes, argv + argc);
  try {
    app.parse(static_cast<int>(dashes - argv), argv);
  } catch (const CLI::Success& help_or_version) {
    return app.exit(help_or_version);
  } catch (const CLI::ParseError& error) {
    throw tool::Failure(std::string(error.what()));
  }
  if (*run) return run_command(*run, from_dashes, environment);
  if (*doctor) return tool::run_doctor(environment, json);
  if (*explain) return tool::explain(environment, explained, program, json);
  return tool::show_config(environment, json ? ConfigFormat::json : markdown ? ConfigFormat::markdown : ConfigFormat::text);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return dispatch(argc, argv);
  } catch (const std::exception& error) {
    std::string line = error.what();
    std::replace(line.begin(), line.end(), '\n', ' ');
    fmt::print(stderr, "zpstack: {}\n", line);
    const bool run = argc > 1 && std::string(argv[1]) == "run";
    return run ? tool::kCannotRun : 1;
  }
}
