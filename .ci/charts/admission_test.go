package charts_test

import (
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	admissiondefaults "k8s.io/kubernetes/pkg/apis/admissionregistration/v1"
	admissionvalidation "k8s.io/kubernetes/pkg/apis/admissionregistration/validation"
)

func TestTheAPIServerTakesPolicyAndBindings(t *testing.T) {
	for name, text := range valuesMatrix {
		t.Run(name, func(t *testing.T) {
			manifests := mustRender(t, withFiles(load(t, appChart)), values(t, text))
			for _, p := range decodeKind[admissionregistrationv1.MutatingAdmissionPolicy](t, manifests, "MutatingAdmissionPolicy") {
				admissiondefaults.SetObjectDefaults_MutatingAdmissionPolicy(&p)
				var internal admissionregistration.MutatingAdmissionPolicy
				if err := admissiondefaults.Convert_v1_MutatingAdmissionPolicy_To_admissionregistration_MutatingAdmissionPolicy(&p, &internal, nil); err != nil {
					t.Fatal(err)
				}
				for _, err := range admissionvalidation.ValidateMutatingAdmissionPolicy(&internal) {
					t.Errorf("%s: %v", p.Name, err)
				}
			}
			for _, b := range decodeKind[admissionregistrationv1.MutatingAdmissionPolicyBinding](t, manifests, "MutatingAdmissionPolicyBinding") {
				admissiondefaults.SetObjectDefaults_MutatingAdmissionPolicyBinding(&b)
				var internal admissionregistration.MutatingAdmissionPolicyBinding
				if err := admissiondefaults.Convert_v1_MutatingAdmissionPolicyBinding_To_admissionregistration_MutatingAdmissionPolicyBinding(&b, &internal, nil); err != nil {
					t.Fatal(err)
				}
				for _, err := range admissionvalidation.ValidateMutatingAdmissionPolicyBinding(&internal) {
					t.Errorf("%s: %v", b.Name, err)
				}
			}
		})
	}
}
