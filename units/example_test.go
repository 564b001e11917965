package units_test

import (
	"fmt"

	"github.com/sockd/sockd/units"
)

func ExampleParse() {
	u, err := units.Parse("/etc/sockd/web.toml", []byte(`
[service]
exec = "./web -v"

[socket.http]
listen = ":8080"
`))
	fmt.Println(err)
	fmt.Println(u.Name, u.Service.Exec, u.Service.Start, u.Service.StopTimeout)
	fmt.Println(u.Sockets[0].Name, u.Sockets[0].Listen)
	// Output:
	// <nil>
	// web [/etc/sockd/web -v] demand 30s
	// http [tcp://:8080]
}

func ExampleProblems() {
	_, err := units.Parse("web.toml", []byte("[service]\nexec = 'web'\nstop_timeout = 10\nrestrat = 'no'\n"))
	fmt.Println(err)
	// Output:
	// web.toml:3:16: service.stop_timeout: want a duration, read the number 10 (write "10s")
	// web.toml:4:1: service.restrat: unknown key (did you mean "restart"?)
}

func ExampleCompare() {
	parse := func(text string) *units.Set {
		u, err := units.Parse("web.toml", []byte(text))
		if err != nil {
			panic(err)
		}
		return &units.Set{Units: []*units.Unit{u}}
	}
	old := parse("service.exec = 'web'\nsocket.http.listen = ':80'")
	new := parse("service.exec = 'web -v'\nsocket.http = { listen = ':80', backlog = 9 }")
	for _, c := range units.Compare(old, new) {
		fmt.Println(c.What, c.Unit, c.Keys, c.Replace)
		for _, s := range c.Sockets {
			fmt.Println(s.What, s.ID.Socket, s.ID.Address, s.Keys)
		}
	}
	// Output:
	// changed web [service.exec] true
	// changed http tcp://:80 [backlog]
}

func ExampleUnit_TOML() {
	u, err := units.Parse("/etc/sockd/web.toml", []byte("service = { exec = ['web', '-v'], restart = 'on-failure' }\nsocket.http.listen = '8080'"))
	if err != nil {
		panic(err)
	}
	text, err := u.TOML()
	fmt.Print(string(text), err)
	// Output:
	// [service]
	// exec = ["web", "-v"]
	//
	// [socket.http]
	// listen = "tcp://:8080"
	// <nil>
}
