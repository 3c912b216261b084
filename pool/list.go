package pool

// list is a doubly linked list whose nodes live in what they list, so that
// putting something in and taking it out costs no allocation.
type list[T any] struct {
	front, back *node[T]
	len         int
}

type node[T any] struct {
	value      T
	next, prev *node[T]
	in         *list[T]
}

func (l *list[T]) pushFront(n *node[T]) {
	n.in, n.prev, n.next = l, nil, l.front
	if l.front != nil {
		l.front.prev = n
	} else {
		l.back = n
	}
	l.front = n
	l.len++
}

func (l *list[T]) pushBack(n *node[T]) {
	n.in, n.next, n.prev = l, nil, l.back
	if l.back != nil {
		l.back.next = n
	} else {
		l.front = n
	}
	l.back = n
	l.len++
}

func (l *list[T]) remove(n *node[T]) {
	if n.in != l {
		panic("bug: pool: removed from a list it is not in")
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

func (l *list[T]) has(n *node[T]) bool { return n.in == l }

// within reports whether n is among the first k.
func (l *list[T]) within(n *node[T], k int) bool {
	for f := l.front; f != nil && k > 0; f, k = f.next, k-1 {
		if f == n {
			return true
		}
	}
	return false
}
