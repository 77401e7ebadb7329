// A Lumberjack server made of go-lumber. It writes one line for each event, "DATASET ID SEQUENCE",
// to a file, and acknowledges a batch once its lines are there.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"os"

	"github.com/elastic/go-lumber/server"
)

func main() {
	bind := flag.String("bind", "127.0.0.1:5044", "host:port")
	out := flag.String("out", "events", "file to append to")
	folder := flag.String("tls", "", "folder with server.pem, server.key, ca.pem: clients need a certificate")
	flag.Parse()
	options := []server.Option{server.V2(true)}
	if *folder != "" {
		pair, err := tls.LoadX509KeyPair(*folder+"/server.pem", *folder+"/server.key")
		if err != nil {
			log.Fatal(err)
		}
		data, err := os.ReadFile(*folder + "/ca.pem")
		if err != nil {
			log.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(data)
		options = append(options, server.TLS(&tls.Config{
			Certificates: []tls.Certificate{pair},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    pool,
		}))
	}
	file, err := os.OpenFile(*out, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	s, err := server.ListenAndServe(*bind, options...)
	if err != nil {
		log.Fatal(err)
	}
	for batch := range s.ReceiveChan() {
		lines := ""
		for _, each := range batch.Events {
			event := each.(map[string]interface{})["event"].(map[string]interface{})
			lines += fmt.Sprintf("%v %v %.0f\n", event["dataset"], event["id"], number(event["sequence"]))
		}
		if _, err := file.WriteString(lines); err != nil {
			log.Fatal(err)
		}
		batch.ACK()
	}
}

func number(value interface{}) float64 {
	found, _ := value.(float64)
	return found
}
