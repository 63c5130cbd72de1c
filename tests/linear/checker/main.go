// Checks histories of mounts: is there one order of all operations, each between its call and its
// return, that a single machine could have answered in?
//
//	linear_check [-timeout 60s] [-html FILE] HISTORY...
//
// Exit code 0: linearizable. 1: not; the group is named, and FILE shows it. 2: it cannot be told.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

var known = map[string]bool{"create": true, "open": true, "unlink": true, "rename": true, "link": true,
	"write": true, "read": true, "attr": true, "mark": true, "marked": true, "list": true, "lock": true, "unlock": true}

func check(r *record) error {
	if !known[r.Op] || r.Name < 0 || r.Name >= namesMax || r.To < 0 || r.To >= namesMax {
		return fmt.Errorf("not an operation: %+v", *r)
	}
	switch r.How {
	case "", "exchange", "noreplace":
	default:
		return fmt.Errorf("unknown way: %+v", *r)
	}
	if r.Call <= 0 || r.Return < r.Call || r.Client < 0 {
		return fmt.Errorf("impossible times or client: %+v", *r)
	}
	switch r.Result {
	case resultOK, resultAbsent, resultExists, resultBusy, resultUnknown:
		return nil
	}
	return fmt.Errorf("unknown result: %+v", *r)
}

func load(file string, groups map[int][]porcupine.Operation) (int, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	count := 0
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		r := &record{}
		if err := json.Unmarshal(lines.Bytes(), r); err != nil {
			return 0, fmt.Errorf("%s: line %d: %w", file, count+1, err)
		}
		if err := check(r); err != nil {
			return 0, fmt.Errorf("%s: line %d: %w", file, count+1, err)
		}
		groups[r.Group] = append(groups[r.Group], operation(r))
		count++
	}
	return count, lines.Err()
}

func draw(file string, info porcupine.LinearizationInfo) {
	if file == "" {
		return
	}
	if err := porcupine.VisualizePath(model, info, file); err != nil {
		fmt.Fprintln(os.Stderr, "linear_check:", err)
		return
	}
	fmt.Println("drawn in", file)
}

// How far the longest order comes, and what does not fit after it.
func explain(operations []porcupine.Operation, info porcupine.LinearizationInfo) {
	var best []int
	for _, partition := range info.PartialLinearizations() {
		for _, order := range partition {
			if len(order) > len(best) {
				best = order
			}
		}
	}
	done := map[int]bool{}
	for _, i := range best {
		done[i] = true
	}
	first := int64(math.MaxInt64) // what has ended by then must come next
	for i, o := range operations {
		if !done[i] && o.Return < first {
			first = o.Return
		}
	}
	line := func(mark string, i int) {
		o := operations[i]
		fmt.Printf("  %s %d..%d client %d: %s\n", mark, o.Call, o.Return, o.ClientId, describe(o.Input, o.Output))
	}
	fmt.Printf("the longest order has %d of them; its end, and those of which one had to come next:\n", len(best))
	for _, i := range best[len(best)-min(12, len(best)):] {
		line(" ", i)
	}
	for i, o := range operations {
		if !done[i] && o.Call <= first {
			line("?", i)
		}
	}
}

func run() int {
	timeout := flag.Duration("timeout", time.Minute, "for each group")
	html := flag.String("html", "", "a page that shows the first group that is wrong")
	flag.Parse()
	groups := map[int][]porcupine.Operation{}
	total := 0
	for _, file := range flag.Args() {
		n, err := load(file, groups)
		if err != nil {
			fmt.Fprintln(os.Stderr, "linear_check:", err)
			return 2
		}
		total += n
	}
	if total == 0 {
		fmt.Fprintln(os.Stderr, "linear_check: no operations to check")
		return 2
	}
	numbers := []int{}
	for group := range groups {
		numbers = append(numbers, group)
	}
	sort.Ints(numbers)
	for _, group := range numbers {
		result, info := porcupine.CheckOperationsVerbose(model, groups[group], *timeout)
		switch result {
		case porcupine.Illegal:
			fmt.Printf("group %d is not linearizable: no order of its %d operations explains them\n", group, len(groups[group]))
			explain(groups[group], info)
			draw(*html, info)
			return 1
		case porcupine.Unknown:
			fmt.Printf("group %d: %d operations, not decided within %s\n", group, len(groups[group]), *timeout)
			return 2
		}
	}
	fmt.Printf("linearizable: %d operations in %d groups\n", total, len(groups))
	return 0
}

func main() { os.Exit(run()) }
