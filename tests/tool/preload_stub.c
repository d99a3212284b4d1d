/* Stands in for the preloaded library: being loaded is all it does. */
/* SPDX-License-Identifier: BSD-3-Clause */
int zps_stub_loaded;
