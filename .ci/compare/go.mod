module github.com/carpoolproxy/carpool/ci/compare

go 1.26.0
