<?php

namespace App\Resources;

use App\Models\Appointment;

class AppointmentResource extends Resource
{
    public static string $model = Appointment::class;
}
