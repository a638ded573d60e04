// Command volumes gives each claim of the local cluster a folder of the node, and removes it with the volume.
// Sizes are on record only.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v11/controller"
)

// folders provisions volumes as folders below root.
type folders struct {
	root string
}

// Provision makes the folder on the node that the scheduler has chosen for the first pod.
func (f folders) Provision(_ context.Context, options controller.ProvisionOptions) (*core.PersistentVolume, controller.ProvisioningState, error) {
	claim := options.PVC
	if options.SelectedNode == nil {
		return nil, controller.ProvisioningFinished, fmt.Errorf("claim %s/%s: no node is chosen; the storage class must bind with WaitForFirstConsumer", claim.Namespace, claim.Name)
	}
	folder := filepath.Join(f.root, options.PVName)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	volume := &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: options.PVName},
		Spec: core.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      core.ResourceList{core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage]},
			PersistentVolumeSource:        core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: folder}},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{{
				MatchExpressions: []core.NodeSelectorRequirement{{
					Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{options.SelectedNode.Labels[core.LabelHostname]},
				}},
			}}}},
		},
	}
	return volume, controller.ProvisioningFinished, nil
}

// Delete removes the folder with all that is in it.
func (f folders) Delete(_ context.Context, volume *core.PersistentVolume) error {
	if volume.Spec.Local == nil || filepath.Dir(volume.Spec.Local.Path) != f.root {
		return fmt.Errorf("volume %s: not a folder of %s", volume.Name, f.root)
	}
	return os.RemoveAll(volume.Spec.Local.Path)
}

func main() {
	name := flag.String("provisioner", "", "the `name` that storage classes ask for")
	kubeconfig := flag.String("kubeconfig", "", "`file` with the way to the API server")
	root := flag.String("root", "", "`folder` that the volumes' folders are made in")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		klog.Exit(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	controller.NewProvisionController(
		ctx,
		kubernetes.NewForConfigOrDie(config),
		*name,
		folders{root: filepath.Clean(*root)},
		controller.LeaderElection(false),
	).Run(ctx)
}
