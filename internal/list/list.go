// Package list is a doubly linked list whose nodes live in what they list, so
// that putting something in and taking it out costs no allocation and no search.
package list

// List is a list of Ts. The zero value is empty. It is not safe for concurrent
// use, and neither are its nodes.
type List[T any] struct {
	front, back *Node[T]
	len         int
}

// Node is the place of one value. It is in one list at a time, or in none, as
// the zero value is. To put it into a second one, or to take it out of a list it
// is not in, is a fault of the caller's, and panics.
type Node[T any] struct {
	// Value is set before the node is put into a list.
	Value T

	next, prev *Node[T]
	in         *List[T]
}

// Len returns how many nodes are in the list.
func (l *List[T]) Len() int { return l.len }

// Front returns the first node, nil if there is none.
func (l *List[T]) Front() *Node[T] { return l.front }

// Back returns the last node, nil if there is none.
func (l *List[T]) Back() *Node[T] { return l.back }

// Has reports whether the node is in this list.
func (l *List[T]) Has(n *Node[T]) bool { return n.in == l }

// PushFront puts a node first.
func (l *List[T]) PushFront(n *Node[T]) {
	l.enter(n)
	if n.next = l.front; l.front != nil {
		l.front.prev = n
	} else {
		l.back = n
	}
	l.front = n
}

// PushBack puts a node last.
func (l *List[T]) PushBack(n *Node[T]) {
	l.enter(n)
	if n.prev = l.back; l.back != nil {
		l.back.next = n
	} else {
		l.front = n
	}
	l.back = n
}

// InsertBefore puts a node before one that is in the list.
func (l *List[T]) InsertBefore(n, next *Node[T]) {
	if next.in != l {
		panic("bug: list: put before a node that is not in the list")
	}
	if next == l.front {
		l.PushFront(n)
		return
	}
	l.enter(n)
	n.prev, n.next = next.prev, next
	next.prev.next, next.prev = n, n
}

func (l *List[T]) enter(n *Node[T]) {
	if n.in != nil {
		panic("bug: list: put into a list while in one")
	}
	n.in = l
	l.len++
}

// Remove takes a node out of this list.
func (l *List[T]) Remove(n *Node[T]) {
	if n.in != l {
		panic("bug: list: removed from a list it is not in")
	}
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		l.front = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		l.back = n.prev
	}
	n.in, n.next, n.prev = nil, nil, nil
	l.len--
}

// Listed reports whether the node is in a list.
func (n *Node[T]) Listed() bool { return n.in != nil }

// Leave takes the node out of the list that it is in.
func (n *Node[T]) Leave() {
	if n.in == nil {
		panic("bug: list: removed from a list it is not in")
	}
	n.in.Remove(n)
}

// Next returns the node behind this one, nil behind the last.
func (n *Node[T]) Next() *Node[T] { return n.next }

// Prev returns the node before this one, nil before the first.
func (n *Node[T]) Prev() *Node[T] { return n.prev }
