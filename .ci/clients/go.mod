module github.com/carpoolproxy/carpool/ci/clients

go 1.26.0
