package preload

import (
	"os"
	"path/filepath"
)

// Name is what the script's file is called.
const Name = "preload.js"

// Write puts the script into a directory, where whoever has it mounted can read
// it. Whoever opens the file sees it whole: as it was before, or as it is now.
func Write(dir string) error {
	f, err := os.CreateTemp(dir, "."+Name+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // of no effect once it is renamed
	_, err = f.Write(Script)
	if err == nil {
		err = f.Chmod(0o644) // the app may be another user
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, Name))
}
