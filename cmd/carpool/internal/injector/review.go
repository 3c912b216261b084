package injector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/inject"
)

// The paths on which pods are reviewed. Which of them is asked follows from the
// labels of the pod's namespace, which the API server looks at.
const (
	pathPlain    = "/inject"
	pathSettings = "/inject/settings" // in a namespace with settings of its own
)

// largestReview bounds what the API server may send: it takes no object beyond 3 MiB.
const largestReview = 4 << 20

// review is an AdmissionReview of admission.k8s.io/v1.
type review struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Request    *request  `json:"request,omitempty"`
	Response   *response `json:"response,omitempty"`
}

type request struct {
	UID  string `json:"uid"`
	Kind struct {
		Group, Version, Kind string
	} `json:"kind"`
	Namespace string          `json:"namespace"`
	Object    json.RawMessage `json:"object"`
}

type response struct {
	UID       string  `json:"uid"`
	Allowed   bool    `json:"allowed"`
	Status    *status `json:"status,omitempty"`
	PatchType string  `json:"patchType,omitempty"`
	Patch     []byte  `json:"patch,omitempty"`
}

type status struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// A reviewer answers reviews of pods.
type reviewer struct {
	options     inject.Options
	whenMissing string
	namespaces  *namespaces
	counts      *counts
	log         *zap.Logger
	turns       chan struct{} // as many as may be at work at a time
}

// ServeHTTP answers a review. What it cannot answer it fails, and the API server then
// does what the webhook's failurePolicy says.
func (v *reviewer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	done := v.began()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largestReview)) // first: who sends slowly takes no turn
	select {
	case v.turns <- struct{}{}:
		defer func() { <-v.turns }()
	case <-r.Context().Done():
		done(failed, r.Context().Err())
		return
	}
	var in review
	if err == nil {
		err = json.Unmarshal(body, &in)
	}
	if err != nil {
		done(failed, err)
		http.Error(w, fmt.Sprintf("no AdmissionReview: %v", err), http.StatusBadRequest)
		return
	}
	if in.Request == nil || in.Request.Kind.Kind != "Pod" || in.Request.Kind.Group != "" {
		err := errors.New("no review of a pod")
		done(failed, err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out, how, err := v.review(r.Context(), in.Request, r.URL.Path == pathSettings)
	done(how, err)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview", Response: out})
}

// began begins to count a review, and returns what ends it.
func (v *reviewer) began() (done func(outcome, error)) {
	begin := time.Now()
	return func(how outcome, err error) {
		v.counts.review(how, time.Since(begin))
		if err != nil {
			v.log.Error("a review has failed: the webhook's failurePolicy decides about the pod", zap.String("error", err.Error()))
		}
	}
}

// review decides about a pod.
func (v *reviewer) review(ctx context.Context, r *request, settings bool) (*response, outcome, error) {
	out := &response{UID: r.UID, Allowed: true}
	of, err := v.namespaceOf(ctx, r.Namespace, settings)
	if err == nil {
		out.Patch, err = inject.Pod(r.Object, v.options, of)
	}
	if refusal, ok := errors.AsType[*inject.Refusal](err); ok {
		out.Allowed, out.Status = false, &status{http.StatusUnprocessableEntity, "Invalid", refusal.Error()}
		return out, refused, nil
	}
	if err != nil {
		return nil, failed, err
	}
	if out.Patch == nil {
		return out, unchanged, nil
	}
	out.PatchType = "JSONPatch"
	return out, injected, nil
}

// namespaceOf returns what a namespace has to say. A LimitRange that cannot be read
// is passed over, as the policy for them is if it fails.
func (v *reviewer) namespaceOf(ctx context.Context, name string, settings bool) (of inject.Namespace, err error) {
	if of.Limits, err = v.namespaces.limitsOf(ctx, name); err != nil {
		v.log.Warn("the LimitRanges of a namespace are passed over", zap.String("namespace", name), zap.String("error", err.Error()))
	}
	if !settings {
		return of, nil
	}
	if of.Settings, err = v.namespaces.settingsOf(ctx, name); err != nil {
		return of, err
	}
	if of.Settings == nil {
		if v.whenMissing == "Deny" {
			return of, &inject.Refusal{Faults: []string{"namespace " + name +
				" has the label carpoolproxy.github.io/settings: namespace, but no ConfigMap carpool: make it, or take the label off"}}
		}
		of.Without = true
	}
	return of, nil
}
