// Command hello greets those who are named on the command line.
package main

import (
	"fmt"
	"os"
	"strings"
)

func greeting(names []string) string {
	if len(names) == 0 {
		names = []string{"world"}
	}
	return "Hello, " + strings.Join(names, " and ") + "!"
}

func main() {
	fmt.Println(greeting(os.Args[1:]))
}
