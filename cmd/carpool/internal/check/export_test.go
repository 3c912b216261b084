package check

// SetWidth sets how long lines are at most, and returns what it was.
func SetWidth(n int) int {
	before := width
	width = n
	return before
}
