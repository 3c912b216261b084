module github.com/carpoolproxy/carpool/ci/clients

go 1.26.0

require github.com/carpoolproxy/carpool v0.0.0

require golang.org/x/net v0.62.0 // indirect

replace github.com/carpoolproxy/carpool => ../..
