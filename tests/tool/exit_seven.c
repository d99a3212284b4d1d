/* A program whose exit status says that it ran. */
/* SPDX-License-Identifier: BSD-3-Clause */
int main(void) { return 7; }
