// An intrusive doubly linked list: nodes live inside their objects, so nothing allocates and removal is O(1).
// SPDX-License-Identifier: BSD-3-Clause
//
// Lists and nodes may lie in memory that a fork family shares: links are plain pointers, valid in every
// member because the mapping has one address. The owner's lock protects list and nodes alike.
#pragma once

#include "base/check.h"

namespace base {

struct ListNode {
  ListNode* prev = nullptr;
  ListNode* next = nullptr;

  [[nodiscard]] bool linked() const noexcept { return next != nullptr; }

  // Takes the node out of whatever list it is in; no effect on an unlinked node.
  void unlink() noexcept {
    if (!linked()) return;
    prev->next = next;
    next->prev = prev;
    prev = next = nullptr;
  }
};

// A list of T, where T derives from ListNode (or from a Tag type that does, for objects in several lists).
template <class T>
class List {
 public:
  List() noexcept { head_.prev = head_.next = &head_; }
  List(const List&) = delete;
  List& operator=(const List&) = delete;

  [[nodiscard]] bool empty() const noexcept { return head_.next == &head_; }
  [[nodiscard]] T* front() noexcept { return empty() ? nullptr : static_cast<T*>(head_.next); }
  [[nodiscard]] const T* front() const noexcept { return empty() ? nullptr : static_cast<const T*>(head_.next); }
  // The element after `item`, or nullptr at the end.
  [[nodiscard]] T* after(T* item) noexcept { return item->next == &head_ ? nullptr : static_cast<T*>(item->next); }

  void push_back(T* item) noexcept { insert(head_.prev, item); }
  void push_front(T* item) noexcept { insert(&head_, item); }
  T* pop_front() noexcept {
    T* item = front();
    if (item != nullptr) item->unlink();
    return item;
  }

 private:
  static void insert(ListNode* before, ListNode* item) noexcept {
    CHECK(!item->linked());
    item->prev = before;
    item->next = before->next;
    before->next->prev = item;
    before->next = item;
  }

  ListNode head_;
};

}  // namespace base
