package list_test

import (
	"slices"
	"testing"

	"github.com/carpoolproxy/carpool/internal/list"
)

// check holds the list against what is to be in it, from both ends.
func check(t *testing.T, l *list.List[int], want ...int) {
	t.Helper()
	var forth, back []int
	for n := l.Front(); n != nil; n = n.Next() {
		forth = append(forth, n.Value)
	}
	for n := l.Back(); n != nil; n = n.Prev() {
		back = append(back, n.Value)
	}
	slices.Reverse(back)
	if !slices.Equal(forth, want) || !slices.Equal(back, want) || l.Len() != len(want) {
		t.Errorf("forth %v, back %v, %d in all; want %v", forth, back, l.Len(), want)
	}
}

func TestOrder(t *testing.T) {
	var l list.List[int]
	nodes := make([]list.Node[int], 4)
	for i := range nodes {
		nodes[i].Value = i
	}
	check(t, &l)
	l.PushBack(&nodes[1])
	l.PushBack(&nodes[2])
	l.PushFront(&nodes[0])
	l.PushBack(&nodes[3])
	check(t, &l, 0, 1, 2, 3)
	l.Remove(&nodes[2])
	check(t, &l, 0, 1, 3)
	nodes[0].Leave()
	check(t, &l, 1, 3)
	if l.Has(&nodes[0]) || nodes[0].Listed() || !l.Has(&nodes[3]) || !nodes[3].Listed() {
		t.Error("it does not know what is in it")
	}
	l.Remove(&nodes[3])
	check(t, &l, 1)
	l.PushFront(&nodes[3])
	check(t, &l, 3, 1)
	l.InsertBefore(&nodes[2], &nodes[1])
	check(t, &l, 3, 2, 1)
	l.InsertBefore(&nodes[0], &nodes[3])
	check(t, &l, 0, 3, 2, 1)
	for i := range nodes {
		nodes[i].Leave()
	}
	check(t, &l)
}

func TestANodeIsInOneListAtMost(t *testing.T) {
	var a, b list.List[int]
	var in, out list.Node[int]
	a.PushBack(&in)
	for name, misuse := range map[string]func(){
		"pushed in front again":     func() { a.PushFront(&in) },
		"pushed behind again":       func() { a.PushBack(&in) },
		"pushed into another":       func() { b.PushBack(&in) },
		"pushed in front elsewhere": func() { b.PushFront(&in) },
		"put before itself":         func() { a.InsertBefore(&in, &in) },
		"put before one elsewhere":  func() { b.InsertBefore(&out, &in) },
		"removed from another":      func() { b.Remove(&in) },
		"removed, being in none":    func() { a.Remove(&out) },
		"leaves, being in none":     func() { out.Leave() },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it was let through")
				}
				if a.Len() != 1 || b.Len() != 0 || a.Front() != &in {
					t.Error("it has changed something")
				}
			}()
			misuse()
		})
	}
}
