-- For wrk: writes the times to the answer at more percentages than it does by itself, a line each: `percentile 99.9 123.0` (microseconds).
-- SPDX-License-Identifier: BSD-3-Clause
function done(summary, latency, requests)
  io.write(string.format("percentile 0 %.1f\n", latency.min))
  for _, percent in ipairs({10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99}) do
    io.write(string.format("percentile %g %.1f\n", percent, latency:percentile(percent)))
  end
  io.write(string.format("percentile 100 %.1f\n", latency.max))
end
