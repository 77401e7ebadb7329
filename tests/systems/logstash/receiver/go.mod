module receiver

go 1.22

require github.com/elastic/go-lumber v0.2.0
