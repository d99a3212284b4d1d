// DPDK's interrupt service, replaced: registrations go to the wire's Control, and there is no thread.
// SPDX-License-Identifier: BSD-3-Clause
//
// EAL's own version (left out of the prelinked archive) starts a thread that epolls; it would not survive fork() and would run
// beside the holder of the stack's lock. Everything that the drivers in here ask for is here; per-queue epoll sets
// are not offered, because a wire's sleep_fd() is polled by the caller together with its own descriptors. Drivers of devices have what
// switches interrupts on and off themselves (device/prelink.sh).
#include <cerrno>

#include <rte_epoll.h>
#include <rte_interrupts.h>

#include "netstack/wires/control.h"

using netstack::Control;

#pragma GCC visibility push(default)
extern "C" {

int rte_eal_intr_init(void) { return 0; }

int rte_intr_callback_register(const rte_intr_handle* handle, rte_intr_callback_fn callback, void* argument) {
  Control* control = Control::current();
  const int fd = handle == nullptr ? -1 : rte_intr_fd_get(handle);
  if (control == nullptr || callback == nullptr || fd < 0) return -EINVAL;
  const rte_intr_handle_type type = rte_intr_type_get(handle);
  const bool counts = type == RTE_INTR_HANDLE_ALARM || type == RTE_INTR_HANDLE_VFIO_LEGACY || type == RTE_INTR_HANDLE_VFIO_MSI ||
                      type == RTE_INTR_HANDLE_VFIO_MSIX;
  return control->add_callback(const_cast<rte_intr_handle*>(handle), fd, callback, argument, counts);
}

int rte_intr_callback_unregister(const rte_intr_handle* handle, rte_intr_callback_fn callback, void* argument) {
  Control* control = Control::current();
  if (control == nullptr) return -EINVAL;
  return control->remove_callback(const_cast<rte_intr_handle*>(handle), callback, argument);
}

int rte_intr_callback_unregister_sync(const rte_intr_handle* handle, rte_intr_callback_fn callback, void* argument) {
  return rte_intr_callback_unregister(handle, callback, argument);
}

int rte_intr_callback_unregister_pending(const rte_intr_handle* handle, rte_intr_callback_fn callback, void* argument,
                                         rte_intr_unregister_callback_fn after) {
  Control* control = Control::current();
  if (control == nullptr) return -EINVAL;
  return control->remove_callback_later(const_cast<rte_intr_handle*>(handle), callback, argument, after);
}

int rte_intr_enable(const rte_intr_handle*) { return 0; }
int rte_intr_disable(const rte_intr_handle*) { return 0; }
int rte_intr_ack(const rte_intr_handle*) { return 0; }
int rte_intr_rx_ctl(rte_intr_handle*, int, int, unsigned, void*) { return -ENOTSUP; }
void rte_intr_free_epoll_fd(rte_intr_handle*) {}
int rte_thread_is_intr(void) { return Control::current() != nullptr; }

}  // extern "C"
#pragma GCC visibility pop
