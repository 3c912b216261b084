module github.com/carpoolproxy/carpool/ci/e2e

go 1.26.0
