// The specification: what one directory tree on one machine would answer.
//
// A group is two directories with a fixed set of names; groups share nothing, so each is checked on
// its own. Inodes are known by the numbers that the mounts showed. An inode without a name is
// forgotten: what handles on it still read is not specified here.
package main

import (
	"fmt"
	"math"

	"github.com/anishathalye/porcupine"
)

const namesMax = 16 // of a group

// A record of the history: one line of JSON from tests/linear/worker.py.
type record struct {
	Client int    `json:"client"`
	Group  int    `json:"group"`
	Op     string `json:"op"`
	Name   int    `json:"name"`  // of the group; rename, link: the old one
	To     int    `json:"to"`    // rename, link: the new one
	Ino    int64  `json:"ino"`   // asked of, or shown by the answer; 0: there is no such name
	Value  int64  `json:"value"` // written or read; 0: the file is empty. attr: the number of names. list: 1 if the name was in it
	How    string `json:"how"`   // rename: "", "exchange" or "noreplace"
	Result string `json:"result"`
	Call   int64  `json:"call"` // ns, of one clock for all
	Return int64  `json:"return"`
}

// Answers.
const (
	resultOK      = "ok"
	resultAbsent  = "ENOENT"
	resultExists  = "EEXIST"
	resultBusy    = "EAGAIN"
	resultUnknown = "unknown" // the client was lost: it may have been done, or be done later
)

// A number for an inode whose creator did not live to see it. The first who sees it binds it.
func placeholder(call int64) int64 { return -call }

type state struct {
	ino   [namesMax]int64
	value [namesMax]int64 // of all names of one inode alike
	mark  [namesMax]int64 // the same, of its extended attribute; 0: it has none
	owner int             // of the group's lock: the client + 1
}

func (s *state) put(name int, ino, value, mark int64) {
	s.ino[name], s.value[name], s.mark[name] = ino, value, mark
}

func (s *state) find(ino int64) int {
	for i, have := range s.ino {
		if have == ino {
			return i
		}
	}
	return -1
}

// What the client saw at a name. False: that is not what is there.
func (s *state) sees(name int, ino int64) bool {
	have := s.ino[name]
	if have >= 0 || ino == 0 {
		return have == ino
	}
	if s.find(ino) >= 0 {
		return false
	}
	for i := range s.ino {
		if s.ino[i] == have {
			s.ino[i] = ino
		}
	}
	return true
}

func (s *state) links(ino int64) int64 {
	var n int64
	for _, have := range s.ino {
		if have == ino {
			n++
		}
	}
	return n
}

func create(s *state, r *record) bool {
	switch {
	case r.Result == resultExists:
		return s.ino[r.Name] != 0
	case r.Result == resultOK:
		if s.ino[r.Name] != 0 || s.find(r.Ino) >= 0 {
			return false
		}
		s.put(r.Name, r.Ino, 0, 0)
	case s.ino[r.Name] == 0:
		s.put(r.Name, placeholder(r.Call), 0, 0)
	}
	return true
}

func unlink(s *state, r *record) bool {
	if r.Result == resultAbsent {
		return s.ino[r.Name] == 0
	}
	if r.Result == resultOK && s.ino[r.Name] == 0 {
		return false
	}
	s.put(r.Name, 0, 0, 0)
	return true
}

func rename(s *state, r *record) bool {
	from, to := r.Name, r.To
	absent := s.ino[from] == 0 || (r.How == "exchange" && s.ino[to] == 0)
	exists := r.How == "noreplace" && s.ino[to] != 0
	switch {
	case r.Result == resultAbsent:
		return absent
	case r.Result == resultExists:
		return exists
	case absent || exists:
		return r.Result != resultOK
	case s.ino[from] == s.ino[to]:
		return true // two names of one file: POSIX has both stay
	}
	old := *s
	s.put(to, old.ino[from], old.value[from], old.mark[from])
	if r.How == "exchange" {
		s.put(from, old.ino[to], old.value[to], old.mark[to])
	} else {
		s.put(from, 0, 0, 0)
	}
	return true
}

// By the open inode, so that the old name is not looked up again.
func link(s *state, r *record) bool {
	at := s.find(r.Ino)
	switch {
	case r.Result == resultAbsent:
		return at < 0
	case r.Result == resultExists:
		return s.ino[r.To] != 0
	case r.Result == resultOK && (at < 0 || s.ino[r.To] != 0):
		return false
	case at >= 0 && s.ino[r.To] == 0:
		s.put(r.To, r.Ino, s.value[at], s.mark[at])
	}
	return true
}

func write(s *state, r *record, of *[namesMax]int64) bool {
	for i, have := range s.ino {
		if have == r.Ino {
			of[i] = r.Value
		}
	}
	return true
}

// What was read of an inode; one without a name is not known.
func read(s *state, r *record, of *[namesMax]int64) bool {
	at := s.find(r.Ino)
	return at < 0 || of[at] == r.Value
}

// Whether a name was in a listing.
func list(s *state, r *record) bool {
	return (s.ino[r.Name] != 0) == (r.Value != 0)
}

func lock(s *state, r *record) bool {
	switch {
	case r.Result == resultBusy:
		return s.owner != 0
	case s.owner == 0:
		s.owner = r.Client + 1
		return true
	}
	return r.Result == resultUnknown
}

func unlock(s *state, r *record) bool {
	if s.owner == r.Client+1 {
		s.owner = 0
		return true
	}
	return r.Result == resultUnknown
}

func step(before, input, output interface{}) (bool, interface{}) {
	s := before.(state)
	r := input.(*record)
	ok := false
	switch r.Op {
	case "create":
		ok = create(&s, r)
	case "open":
		ok = s.sees(r.Name, r.Ino)
	case "unlink":
		ok = unlink(&s, r)
	case "rename":
		ok = rename(&s, r)
	case "link":
		ok = link(&s, r)
	case "write":
		ok = write(&s, r, &s.value)
	case "read":
		ok = read(&s, r, &s.value)
	case "mark":
		ok = write(&s, r, &s.mark)
	case "marked":
		ok = read(&s, r, &s.mark)
	case "list":
		ok = list(&s, r)
	case "attr":
		ok = s.links(r.Ino) == r.Value
	case "lock":
		ok = lock(&s, r)
	case "unlock":
		ok = unlock(&s, r)
	}
	return ok, s
}

func describe(input, output interface{}) string {
	r := input.(*record)
	switch r.Op {
	case "rename":
		return fmt.Sprintf("rename %d -> %d %s: %s", r.Name, r.To, r.How, r.Result)
	case "link":
		return fmt.Sprintf("link #%d -> %d: %s", r.Ino, r.To, r.Result)
	case "open":
		return fmt.Sprintf("open %d: #%d", r.Name, r.Ino)
	case "list":
		return fmt.Sprintf("list %d: %d", r.Name, r.Value)
	case "write", "read", "attr", "mark", "marked":
		return fmt.Sprintf("%s #%d: %d %s", r.Op, r.Ino, r.Value, r.Result)
	}
	return fmt.Sprintf("%s %d: %s #%d", r.Op, r.Name, r.Result, r.Ino)
}

var model = porcupine.Model{
	Init:              func() interface{} { return state{} },
	Step:              step,
	Equal:             func(a, b interface{}) bool { return a.(state) == b.(state) },
	DescribeOperation: describe,
}

// What nobody knows the end of may take effect at any time after its call, or never: that is the
// same as at the very end, where nobody looks.
func operation(r *record) porcupine.Operation {
	end := r.Return
	if r.Result == resultUnknown {
		end = math.MaxInt64
	}
	return porcupine.Operation{ClientId: r.Client, Input: r, Call: r.Call, Output: r, Return: end}
}
